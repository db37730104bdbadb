// `flotilla tokenize` as a user runs it.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace {

struct Result {
  int code;
  std::string out, err;
};

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

Result run(const std::string& arguments, const std::string& input) {
  const auto dir =
      std::filesystem::temp_directory_path() / ("flotilla_cli_" + std::to_string(::getpid()));
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "in", std::ios::binary) << input;
  const std::string command = std::string(FLOTILLA_BINARY) + " " + arguments + " <" +
                              (dir / "in").string() + " >" + (dir / "out").string() + " 2>" +
                              (dir / "err").string();
  const int status = std::system(command.c_str());
  Result result{WEXITSTATUS(status), read(dir / "out"), read(dir / "err")};
  std::filesystem::remove_all(dir);
  return result;
}

const std::string kDir = FLOTILLA_TEST_TOKENIZERS "/fixture-bytelevel";

}  // namespace

TEST_CASE("TokenizeCommand.TurnsAWholeTextIntoIdsAndBack") {
  const Result ids = run("tokenize " + kDir, "Hello, my name is");
  CHECK(ids.code == 0);
  CHECK(ids.out == "39 510 357 11 306 88 476 316\n");
  const Result text = run("tokenize " + kDir + " --decode", "[39, 510,357\n11 306 88 476 316]\n");
  CHECK(text.code == 0);
  CHECK(text.out == "Hello, my name is");
}

TEST_CASE("TokenizeCommand.WorksLineByLineOnJson") {
  const Result ids =
      run("tokenize --jsonl " + kDir, "\"Hello, my name is\"\n\"\"\n\"a\\nb\\u2028\"\r\n\"x\"");
  CHECK(ids.code == 0);
  CHECK(ids.out.starts_with("[39,510,357,11,306,88,476,316]\n[]\n["));
  const Result text = run("tokenize --jsonl --decode " + kDir, ids.out);
  CHECK(text.code == 0);
  CHECK(text.out == "\"Hello, my name is\"\n\"\"\n\"a\\nb\\u2028\"\n\"x\"\n");
}

TEST_CASE("TokenizeCommand.NamesTheLineAtFault") {
  const auto fails =
      [](const std::string& arguments, const std::string& input, const std::string& says) {
        const Result result = run("tokenize " + arguments, input);
        CHECK(result.code == 1);
        CHECK_MESSAGE(result.err.find(says) != std::string::npos, result.err);
      };
  fails("--jsonl " + kDir, "\"a\"\nb\n", "line 2: not valid JSON");
  fails("--jsonl " + kDir, "\"a\"\n\n", "line 2: not valid JSON");
  fails("--jsonl " + kDir, "7\n", "line 1: expected a JSON string");
  fails("--jsonl " + kDir, "\"\\ud800\"\n", "line 1: not valid JSON");
  fails("--jsonl --decode " + kDir, "[1]\n[1.5]\n", "line 2: the array must hold whole numbers");
  fails("--jsonl --decode " + kDir, "\"a\"\n", "line 1: expected a JSON array");
  fails("--jsonl --decode " + kDir, "[-1]\n", "line 1: -1 is not a token id");
  fails("--decode " + kDir, "1\n2 x\n", "line 2: 'x' is not a token id");
  fails(kDir, "\xff", "not valid UTF-8");
  fails("/nowhere", "", "has neither tokenizer.json nor tokenizer.model");
}

TEST_CASE("TokenizeCommand.RefusesAWrongCommandLineWithItsHelp") {
  for (const char* arguments :
       {"tokenize", "tokenize --nonsense", "tokenize a b", "nonsense", ""}) {
    CAPTURE(arguments);
    const Result result = run(arguments, "");
    CHECK(result.code == 2);
    CHECK(result.err.find("usage: flotilla") != std::string::npos);
  }
  for (const char* arguments : {"--help", "tokenize --help"}) {
    const Result help = run(arguments, "");
    CHECK(help.code == 0);
    CHECK(help.out.starts_with("usage: flotilla"));
  }
  CHECK(run("--version", "").out.starts_with("flotilla "));
}
