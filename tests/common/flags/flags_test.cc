#include "common/flags/flags.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace flotilla;

namespace {

FlagTable table() {
  FlagTable t;
  t.program = "demo";
  t.usage = "demo [flags]";
  t.about = "A program.";
  t.groups = {{"Main", "--port 1"}};
  t.flags = {
      {.name = "port",
       .type = FlagType::kInt,
       .group = "Main",
       .default_value = "8000",
       .min = 0,
       .max = 65535},
      {.name = "max-model-len",
       .type = FlagType::kInt,
       .group = "Main",
       .unit = "tokens",
       .min = 16},
      {.name = "rate",
       .type = FlagType::kFloat,
       .group = "Main",
       .default_value = "2.5",
       .min = 0,
       .max = 10},
      {.name = "size", .type = FlagType::kBytes, .group = "Main", .default_value = "1M", .min = 1},
      {.name = "host", .group = "Main", .default_value = "0.0.0.0"},
      {.name = "caching",
       .type = FlagType::kBool,
       .group = "Main",
       .default_value = "true",
       .negatable = true},
      {.name = "expert", .type = FlagType::kBool, .group = "Main"},
      {.name = "queue-port", .type = FlagType::kPorts, .group = "Main"},
      {.name = "origins", .type = FlagType::kList, .group = "Main"},
      {.name = "api-key", .group = "Main", .repeatable = true, .secret = true},
      {.name = "device",
       .type = FlagType::kChoice,
       .group = "Main",
       .default_value = "auto",
       .choices = {{"auto"}, {"cpu"}, {"cuda", Availability::kLater, "needs a GPU"}}},
      {.name = "tensor-parallel-size",
       .group = "Main",
       .availability = Availability::kLater,
       .note = "needs several devices",
       .accepted = {"1"},
       .aliases = {"-tp"}},
      {.name = "use-graph",
       .type = FlagType::kBool,
       .group = "Main",
       .availability = Availability::kSuperseded,
       .note = "use --rate"},
      {.name = "workers",
       .type = FlagType::kInt,
       .group = "Main",
       .availability = Availability::kNoEffect,
       .note = "threads do it"},
      {.name = "lm_head-fp32", .type = FlagType::kBool, .group = "Main"},
      {.name = "args", .type = FlagType::kRemainder, .group = "Main"},
  };
  t.foreign = {"num-servers"};
  add_common_flags(&t);
  return t;
}

const FlagTable& demo() {
  static const FlagTable t = table();
  return t;
}

StatusOr<ParsedFlags> parse(const std::vector<std::string>& args,
                            const Environment& environment = {}) {
  return parse_flags(demo(), args, environment);
}

std::string error_of(const std::vector<std::string>& args, const Environment& environment = {}) {
  const auto parsed = parse(args, environment);
  return parsed.ok() ? "(no error)" : parsed.status().message();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A file that is gone when the test ends.
class TempFile {
 public:
  explicit TempFile(const std::string& content) {
    char name[] = "/tmp/flotilla-flags-XXXXXX";
    const int fd = mkstemp(name);
    REQUIRE(fd >= 0);
    close(fd);
    path_ = name;
    std::ofstream(path_) << content;
  }
  ~TempFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("ParseFlags.TakesBothFormsOfAFlag") {
  for (const auto& args :
       {std::vector<std::string>{"--port", "9000"}, std::vector<std::string>{"--port=9000"}}) {
    const auto parsed = parse(args);
    REQUIRE(parsed.ok());
    CHECK(parsed->integer("port") == 9000);
    CHECK(parsed->source("port") == FlagSource::kCommandLine);
  }
}

TEST_CASE("ParseFlags.DefaultsAreThereWithoutBeingGiven") {
  const auto parsed = parse({});
  REQUIRE(parsed.ok());
  CHECK(parsed->integer("port") == 8000);
  CHECK(parsed->number("rate") == 2.5);
  CHECK(parsed->integer("size") == 1 << 20);
  CHECK(parsed->boolean("caching"));
  CHECK_FALSE(parsed->boolean("expert"));
  CHECK(parsed->text("device") == "auto");
  CHECK_FALSE(parsed->given("port"));
  CHECK_FALSE(parsed->has("max-model-len"));
  CHECK(parsed->ports("queue-port").empty());
}

TEST_CASE("ParseFlags.UnderscoresAndDashesAreTheSame") {
  const auto parsed = parse({"--max_model_len", "32", "--lm-head-fp32", "--queue_port=1,2"});
  REQUIRE(parsed.ok());
  CHECK(parsed->integer("max-model-len") == 32);
  CHECK(parsed->boolean("lm_head-fp32"));
  CHECK(parsed->ports("queue-port") == std::vector<int>{1, 2});
}

TEST_CASE("ParseFlags.BooleansHavePairsAndValues") {
  CHECK_FALSE(parse({"--no-caching"})->boolean("caching"));
  CHECK_FALSE(parse({"--caching=false"})->boolean("caching"));
  CHECK(parse({"--expert", "--port", "1"})->boolean("expert"));
  CHECK(error_of({"--expert=perhaps"}) == "--expert: got 'perhaps', expected true or false");
  CHECK(contains(error_of({"--no-expert"}), "unknown flag --no-expert"));
}

TEST_CASE("ParseFlags.NegativeNumbersAreValues") {
  CHECK(parse({"--host", "-1"})->text("host") == "-1");
  CHECK(error_of({"--port", "-1"}) == "--port: got '-1', expected a whole number from 0 to 65535");
}

TEST_CASE("ParseFlags.ATypoStopsWithTheNearestFlag") {
  CHECK(error_of({"--max-model-length", "9"}) ==
        "unknown flag --max-model-length; did you mean --max-model-len? (demo --help lists all "
        "flags)");
  CHECK(contains(error_of({"--tensor-parallel", "2"}), "did you mean --tensor-parallel-size?"));
  CHECK(contains(error_of({"--prot=1"}), "unknown flag --prot; did you mean --port?"));
  CHECK(error_of({"--xyzzyxyzzy"}) == "unknown flag --xyzzyxyzzy (demo --help lists all flags)");
  CHECK(contains(error_of({"-x", "1"}), "unknown flag -x"));
}

TEST_CASE("ParseFlags.StrayWordsAndMissingValuesAreErrors") {
  CHECK(contains(error_of({"model/"}), "unexpected word 'model/'"));
  CHECK(error_of({"--expert", "model/"}) == "--expert: got 'model/', expected true or false");
  CHECK(contains(error_of({"--expert", "--prot", "1"}), "unknown flag --prot"));
  CHECK(contains(error_of({"--port"}), "port"));
  CHECK(contains(error_of({"--port", "--expert"}), "port"));
  CHECK(contains(error_of({"--host="}), "host"));
}

TEST_CASE("ParseFlags.RangeErrorsNameFlagValueAndRange") {
  CHECK(error_of({"--port", "65536"}) ==
        "--port: got '65536', expected a whole number from 0 to 65535");
  CHECK(error_of({"--max-model-len", "8"}) ==
        "--max-model-len: got '8', expected a whole number of at least 16 (tokens)");
  CHECK(error_of({"--rate", "fast"}) == "--rate: got 'fast', expected a number from 0 to 10");
  CHECK(contains(error_of({"--size", "1Q"}),
                 "--size: got '1Q', expected a size of at least 1 bytes"));
  CHECK(contains(error_of({"--queue-port", "1,x"}),
                 "--queue-port: got '1,x', expected port numbers"));
  CHECK(error_of({"--device", "tpu"}) == "--device: got 'tpu', expected one of auto, cpu");
}

TEST_CASE("ParseFlags.AllMistakesAreSaidAtOnce") {
  const std::string error = error_of({"--port", "x", "--rate", "99"});
  CHECK(contains(error, "--port: got 'x'"));
  CHECK(contains(error, "\n--rate: got '99'"));
}

TEST_CASE("ParseFlags.WhatThisVersionLacksStopsAndSaysWhatItNeeds") {
  CHECK(error_of({"-tp", "2"}) ==
        "--tensor-parallel-size is not in this version: needs several devices");
  CHECK(parse({"-tp", "2"}).status().code() == StatusCode::kUnimplemented);
  CHECK(parse({"-tp=1"}).ok());
  CHECK(error_of({"--device", "cuda"}) == "--device cuda is not in this version: needs a GPU");
  CHECK(error_of({"--use-graph"}) == "--use-graph is not supported: use --rate");
  CHECK(parse({"--use-graph=false"}).ok());
}

TEST_CASE("ParseFlags.AFlagWithoutEffectIsANote") {
  const auto parsed = parse({"--workers", "4"});
  REQUIRE(parsed.ok());
  REQUIRE(parsed->notes().size() == 1);
  CHECK(parsed->notes()[0] == "--workers is accepted and changes nothing: threads do it");
}

TEST_CASE("ParseFlags.TheLastOfTwoCountsWithAWarning") {
  const auto parsed = parse({"--port", "1", "--port", "2"});
  REQUIRE(parsed.ok());
  CHECK(parsed->integer("port") == 2);
  REQUIRE(parsed->warnings().size() == 1);
  CHECK(parsed->warnings()[0] == "--port is given more than once; the last one counts");
}

TEST_CASE("ParseFlags.RepeatableFlagsGather") {
  CHECK(parse({"--api-key", "a", "--api-key=b=c"})->list("api-key") ==
        std::vector<std::string>{"a", "b=c"});
  CHECK(parse({}, {{"FLOTILLA_API_KEY", "a,b"}})->list("api-key") ==
        std::vector<std::string>{"a", "b"});
}

TEST_CASE("ParseFlags.PrecedenceIsCommandLineEnvironmentFileDefault") {
  const TempFile file(
      "port = 1\nrate = 1\nmax_model_len = 100\n[other]\nhost = file\nno-caching = true\n");
  const Environment environment = {{"FLOTILLA_PORT", "2"}, {"FLOTILLA_RATE", "2"}};
  const auto parsed = parse({"--config", file.path(), "--port", "3"}, environment);
  REQUIRE(parsed.ok());
  CHECK(parsed->integer("port") == 3);
  CHECK(parsed->number("rate") == 2.0);
  CHECK(parsed->integer("max-model-len") == 100);
  CHECK(parsed->text("host") == "file");
  CHECK_FALSE(parsed->boolean("caching"));
  CHECK(parsed->integer("size") == 1 << 20);
  CHECK(parsed->source("rate") == FlagSource::kEnvironment);
  CHECK(parsed->source("host") == FlagSource::kFile);
}

TEST_CASE("ParseFlags.ErrorsSayWhereTheValueWasSet") {
  CHECK(error_of({}, {{"FLOTILLA_PORT", "x"}}) ==
        "--port (from FLOTILLA_PORT): got 'x', expected a whole number from 0 to 65535");
  const TempFile file("port = x\n");
  CHECK(error_of({"--config", file.path()}) ==
        "--port (from " + file.path() + "): got 'x', expected a whole number from 0 to 65535");
}

TEST_CASE("ParseFlags.ConfigFileMistakesAreErrors") {
  CHECK(contains(error_of({"--config", "/nonexistent.ini"}),
                 "--config: cannot open /nonexistent.ini"));
  const TempFile typo("prot = 1\n");
  CHECK(contains(error_of({"--config", typo.path()}),
                 "unknown flag prot in " + typo.path() + "; did you mean --port?"));
  const TempFile no_ini("just words\n");
  CHECK(contains(error_of({"--config", no_ini.path()}), "is no INI file of 'flag = value' lines"));
  const TempFile nested("config = other.ini\n");
  CHECK(contains(error_of({"--config", nested.path()}), "--config cannot stand in a file"));
  const TempFile shared("num-servers = 4\nport = 1\n");
  CHECK(parse({"--config", shared.path()}).ok());
}

TEST_CASE("ParseFlags.AnUnknownVariableIsOneWarningAndNoError") {
  const auto parsed = parse({}, {{"FLOTILLA_PROT", "1"}, {"OTHER", "x"}, {"FLOTILLA_HOST", ""}});
  REQUIRE(parsed.ok());
  REQUIRE(parsed->warnings().size() == 1);
  CHECK(parsed->warnings()[0] ==
        "the environment variable FLOTILLA_PROT is no flag of demo; did you mean FLOTILLA_PORT?");
  CHECK(parsed->text("host") == "0.0.0.0");
}

TEST_CASE("ParseFlags.WhatKubernetesInjectsIsIgnored") {
  const auto parsed = parse({},
                            {{"FLOTILLA_PORT", "tcp://10.0.0.1:8000"},
                             {"FLOTILLA_SERVICE_HOST", "10.0.0.1"},
                             {"FLOTILLA_SERVICE_PORT", "8000"},
                             {"FLOTILLA_SERVICE_PORT_HTTP", "8000"},
                             {"FLOTILLA_PORT_8000_TCP", "tcp://10.0.0.1:8000"},
                             {"FLOTILLA_PORT_8000_TCP_PROTO", "tcp"},
                             {"FLOTILLA_PORT_8000_TCP_PORT", "8000"},
                             {"FLOTILLA_PORT_8000_TCP_ADDR", "10.0.0.1"},
                             {"FLOTILLA_FDS", "http=3"},
                             {"FLOTILLA_CLUSTER_SECRET", "x"},
                             {"FLOTILLA_NUM_SERVERS", "8"}});
  REQUIRE(parsed.ok());
  CHECK(parsed->integer("port") == 8000);
  CHECK_FALSE(parsed->given("port"));
  CHECK(parsed->warnings().empty());
}

TEST_CASE("ParseFlags.RemainderTakesEveryWordUntouched") {
  const auto parsed = parse({"--port", "1", "--args", "--no_such=1", "--port", "-tp", "x"});
  REQUIRE(parsed.ok());
  CHECK(parsed->integer("port") == 1);
  CHECK(parsed->list("args") == std::vector<std::string>{"--no_such=1", "--port", "-tp", "x"});
  CHECK(parse({}, {{"FLOTILLA_ARGS", "x"}})->warnings().size() == 1);
}

TEST_CASE("ParsedFlags.NonDefaultMasksSecrets") {
  const auto parsed = parse({"--api-key", "hunter2", "--port", "1"}, {{"FLOTILLA_HOST", "h"}});
  REQUIRE(parsed.ok());
  CHECK(parsed->non_default() == "--api-key=*** --host=h (environment) --port=1");
}

TEST_CASE("HasFlag.LooksOnlyBeforeTheRemainder") {
  CHECK(has_flag(demo(), {"--nonsense", "-h"}, "help"));
  CHECK_FALSE(has_flag(demo(), {"--args", "--help"}, "help"));
}
