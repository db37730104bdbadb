#include "common/flags/help.h"

#include <doctest/doctest.h>

#include "common/flags/flags.h"

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
       .unit = "ports",
       .help = "Where it listens, with a text that is long enough to be wrapped somewhere before "
               "the hundredth column.",
       .min = 0,
       .max = 65535},
      {.name = "mode",
       .type = FlagType::kChoice,
       .group = "Main",
       .help = "How.",
       .choices = {{"a"}, {"b"}, {"c", Availability::kLater, "needs c"}}},
      {.name = "router",
       .group = "Main",
       .availability = Availability::kLater,
       .note = "needs a router"},
      {.name = "workers",
       .group = "Main",
       .availability = Availability::kNoEffect,
       .note = "threads"},
      {.name = "inner", .group = "Main", .help = "Inside.", .internal = true},
  };
  add_common_flags(&t);
  return t;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("HelpText.IsGroupedWithDefaultUnitAndExample") {
  const std::string help = help_text(table());
  CHECK(contains(help, "\nMain\n  --port N"));
  CHECK(contains(help, "[default: 8000 ports]"));
  CHECK(contains(help, "  Example: --port 1\n"));
  CHECK(contains(help, "--mode a|b "));
  CHECK(contains(help, "\nKnown, but not in this version (docs/flags.md says more)\n  --router\n"));
  CHECK(contains(help, "\nAccepted, without effect here (docs/flags.md says more)\n  --workers\n"));
  CHECK_FALSE(contains(help, "--inner"));
  size_t start = 0;
  for (size_t end; (end = help.find('\n', start)) != std::string::npos; start = end + 1) {
    CHECK(end - start <= 110);  // 100 columns; a few bytes more for "…"
  }
}

TEST_CASE("MarkdownText.ListsWhatWorksAndWhatEachOtherNeeds") {
  const std::string text = markdown_text(table());
  CHECK(contains(text, "| `--mode a\\|b` | none | How. `c` is not in this version: needs c |"));
  CHECK(contains(text, "### Not in this version"));
  CHECK(contains(text, "| `--router TEXT` |  | needs a router |"));
  CHECK(contains(text, "| `--workers TEXT` |  | threads |"));
  CHECK(contains(text, "### Set by the launcher for its ranks"));
}

TEST_CASE("JsonText.HasEveryFlag") {
  const std::string text = json_text(table());
  CHECK(contains(text, R"("name":"router","type":"text","group":"Main")"));
  CHECK(contains(
      text,
      R"("availability":"not in this version","note":"needs a router","environment":"FLOTILLA_ROUTER")"));
}

TEST_CASE("FlagsInfo.WinsOverMistakesOnTheCommandLine") {
  const FlagTable t = table();
  CHECK(flags_info(t, {"--nonsense", "--version"}).value().starts_with("demo "));
  CHECK(flags_info(t, {"--help", "--port", "x"}).value().starts_with("Usage: demo"));
  CHECK(flags_info(t, {"--print-flags", "json"}).value().starts_with("{\"program\":\"demo\""));
  CHECK(flags_info(t, {"--print-flags=markdown"}).value().starts_with("## demo"));
  CHECK_FALSE(flags_info(t, {"--port", "1"}).has_value());
}
