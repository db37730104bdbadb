// `flotilla convert` as a command.
#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <string>

#include <sys/wait.h>

#include "tests/tools/convert/scratch_dir.h"
#include "tests/tools/convert/tiny_llama.h"

using namespace flotilla;

namespace {

struct Run {
  int code;
  std::string output;  // both streams
};

Run run(const std::string& arguments) {
  std::FILE* pipe = ::popen((FLOTILLA_BINARY " convert " + arguments + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  Run result{0, {}};
  std::array<char, 4096> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), n);
  }
  result.code = WEXITSTATUS(::pclose(pipe));
  return result;
}

void check_usage(const std::string& arguments, std::string_view part) {
  const Run result = run(arguments);
  CAPTURE(result.output);
  CHECK(result.code == 2);
  CHECK(result.output.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("ConvertCommand.ConvertsAndSaysHowMuch") {
  ScratchDir dir;
  const std::string gguf = dir.write("m.gguf", TinyLlama::builder().build());
  const Run result = run(gguf + " " + (dir / "out") + " --dtype=f32 --shards 2 --threads 1");
  CHECK_MESSAGE(result.code == 0, result.output);
  CHECK(result.output.find("GB in ") != std::string::npos);
  CHECK(std::filesystem::exists(dir / "out/model-00002-of-00002.safetensors"));
}

TEST_CASE("ConvertCommand.MakesATwinAndSaysHowItsRoutersDivide") {
  ScratchDir dir;
  const Run result =
      run(FLOTILLA_TEST_MODELS "/llama " + (dir / "out") + " --moe-twin ernie-pairs --experts 6");
  CHECK_MESSAGE(result.code == 0, result.output);
  CHECK(result.output.find("routers, on 256 tokens") != std::string::npos);
  CHECK(result.output.find("without the router's bias") != std::string::npos);
  CHECK(std::filesystem::exists(dir / "out/model.safetensors"));
}

TEST_CASE("ConvertCommand.FailsWithOneLineAndCode1") {
  ScratchDir dir;
  const Run missing = run((dir / "none.gguf") + " " + (dir / "out"));
  CHECK(missing.code == 1);
  CHECK(missing.output.starts_with("flotilla convert: cannot open "));
  const Run twin = run((dir / "none") + " " + (dir / "out") + " --moe-twin qwen3-pairs");
  CHECK(twin.code == 1);
}

TEST_CASE("ConvertCommand.ExplainsAWrongCommandLine") {
  check_usage("", "it needs a model and OUT_DIR");
  check_usage("a.gguf", "it needs a model and OUT_DIR");
  check_usage("a b c", "unexpected argument 'c'");
  check_usage("a b --dtype f16", "--dtype: got 'f16', expected bf16 or f32");
  check_usage("a b --dtype", "--dtype: got ''");
  check_usage("a b --shards 0", "--shards: got '0'");
  check_usage("a b --threads x", "--threads: got 'x'");
  check_usage("a b --moe-twin both", "unknown twin 'both'");
  check_usage("a b --moe-twin ernie-pairs --experts=1x", "--experts: got '1x'");
  check_usage("a b --moe-twin ernie-pairs --dtype f32", "--dtype: a twin's weights");
  check_usage("a b --experts 8", "--experts goes with --moe-twin");
  check_usage("a b --fast", "unknown flag '--fast'");
  CHECK(run("--help").code == 0);
  CHECK(run("a --help").output.starts_with("usage: flotilla convert"));
}
