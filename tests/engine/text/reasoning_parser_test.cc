#include "engine/text/reasoning_parser.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

using namespace flotilla;
using Delta = ReasoningParser::Delta;

namespace {

Delta parse(std::string_view name,
            std::string_view prompt,
            const std::vector<std::string>& chunks) {
  auto parser = ReasoningParser::make(name, prompt);
  REQUIRE(parser.ok());
  Delta out;
  for (const std::string& chunk : chunks) parser->append(chunk, &out);
  parser->finish(&out);
  return out;
}

Delta whole(std::string_view name, std::string_view prompt, const std::string& text) {
  return parse(name, prompt, {text});
}

}  // namespace

TEST_CASE("ReasoningParser.SplitsQwen3sThinkingFromItsAnswer") {
  CHECK(whole("qwen3", "", "<think>\nhm\nyes\n</think>\n\nIt is 4.\n") ==
        Delta{"hm\nyes", "It is 4.\n"});
  CHECK(whole("qwen3", "…<think>\n", "hm\n</think>\n\n4") == Delta{"hm", "4"});
  CHECK(whole("qwen3", "<think>\n\n</think>\n\n", "4 <b>") == Delta{"", "4 <b>"});
  CHECK(whole("qwen3", "", "no tags </think> here") == Delta{"", "no tags </think> here"});
  CHECK(whole("qwen3", "", "  <th") == Delta{"", "  <th"});
  CHECK(whole("qwen3", "", "<think>\ncut off") == Delta{"cut off", ""});
  CHECK(whole("qwen3", "", "<think>\n\n</think>\n\n") == Delta{"", ""});
  CHECK(whole("qwen3", "", "<think>a</think>b<think>c</think>") == Delta{"a", "b<think>c</think>"});
}

TEST_CASE("ReasoningParser.SplitsErniesThinkingAndTakesItsResponseTagsAway") {
  CHECK(whole("ernie-x1", "<think>\n", "hm\n</think>\n\n<response>\n4\n\nok\n</response>\n") ==
        Delta{"hm", "4\n\nok"});
  CHECK(whole("ernie-x1", "<think>\n", "hm\n</think>\n4 </response>") ==
        Delta{"hm", "4 </response>"});
  CHECK(whole("ernie-x1", "<think>\n", "<think>\nhm\n</think>\n<resp") == Delta{"hm", "<resp"});
  CHECK(whole("ernie-x1", "<think>\n", "hm\n</think>\n<response>\n4\n</resp") ==
        Delta{"hm", "4\n</resp"});
  CHECK(whole("ernie-x1", "", "only thinking") == Delta{"only thinking", ""});
}

TEST_CASE("ReasoningParser.GivesTheSameForEveryWayToCutTheText") {
  const std::vector<std::string> parts = {"<think>",
                                          "</think>",
                                          "<response>",
                                          "</response>",
                                          "\n",
                                          "\n\n",
                                          "a",
                                          " ",
                                          "<",
                                          "</",
                                          "é",
                                          "</thin"};
  std::mt19937 random(9);
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (uint32_t n = random() % 12; n > 0; --n) text += parts[random() % parts.size()];
    std::vector<std::string> chunks;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random() % 4;
      chunks.push_back(text.substr(at, n));
      at += n;
    }
    CAPTURE(text);
    for (const char* name : {"qwen3", "ernie-x1"}) {
      for (const char* prompt : {"", "<think>\n"})
        CHECK(parse(name, prompt, chunks) == whole(name, prompt, text));
    }
  }
}

TEST_CASE("ReasoningParser.StreamsReasoningAsItComes") {
  auto parser = ReasoningParser::make("qwen3", "");
  REQUIRE(parser.ok());
  Delta out;
  parser->append("<think>\nfirst ", &out);
  CHECK(out.reasoning == "first ");
  CHECK(parser->in_reasoning());
  parser->append("second\n</th", &out);
  CHECK(out.reasoning == "first second");
  parser->append("ink>\n\nanswer", &out);
  CHECK(out.content == "answer");
  CHECK_FALSE(parser->in_reasoning());
}

TEST_CASE("ReasoningParser.RefusesAnUnknownNameAndSaysTheKnownOnes") {
  CHECK(ReasoningParser::is_known("qwen3"));
  CHECK_FALSE(ReasoningParser::is_known("gpt"));
  const auto parser = ReasoningParser::make("gpt", "");
  REQUIRE_FALSE(parser.ok());
  CHECK(parser.status().message() == "reasoning parser 'gpt' is unknown; known: qwen3, ernie-x1");
}
