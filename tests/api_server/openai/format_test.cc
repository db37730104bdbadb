#include "api_server/openai/format.h"

#include <doctest/doctest.h>
#include <simdjson.h>

#include <cmath>
#include <limits>

namespace flotilla::openai {
namespace {

using Json = simdjson::dom::element;

const AnswerHead kChatHead = {Dialect::kChat, "chatcmpl-1", 1700000000, "m\"odel"};
const AnswerHead kTextHead = {Dialect::kCompletion, "cmpl-1", 1700000000, "m"};

// Parses one answer; keeps the memory that elements point into.
struct Parsed {
  simdjson::dom::parser parser;
  Json root;
  explicit Parsed(const std::string& json) {
    CAPTURE(json);
    REQUIRE(parser.parse(json).get(root) == simdjson::SUCCESS);
  }
};
std::string payload(const std::string& event) {
  CAPTURE(event);
  REQUIRE(event.substr(0, 6) == "data: ");
  REQUIRE(event.substr(event.size() - 2) == "\n\n");
  REQUIRE(event.find('\n') == event.size() - 2);
  return event.substr(6, event.size() - 8);
}
std::string minified(simdjson::simdjson_result<Json> element) {
  return simdjson::minify(element.value());
}

LogprobEntry entry(std::string token,
                   float logprob,
                   uint64_t offset,
                   std::vector<NamedLogprob> top = {}) {
  LogprobEntry e;
  e.chosen = {token, token, logprob};
  e.text_offset = offset;
  e.top = std::move(top);
  return e;
}

TEST_CASE("WholeAnswer.HasAllFieldsThatOpenAisSchemaRequiresOfAChat") {
  const Choice choice = {.index = 0, .text = "Hi \"you\"", .finish = FinishReason::kStop};
  const Parsed p(whole_answer(
      kChatHead, {&choice, 1}, {.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1}));
  CHECK(minified(p.root["id"]) == "\"chatcmpl-1\"");
  CHECK(minified(p.root["object"]) == "\"chat.completion\"");
  CHECK(minified(p.root["created"]) == "1700000000");
  CHECK(minified(p.root["model"]) == "\"m\\\"odel\"");
  CHECK(minified(p.root.at_pointer("/choices/0")) ==
        R"({"index":0,"message":{"role":"assistant","content":"Hi \"you\"","refusal":null},)"
        R"("logprobs":null,"finish_reason":"stop","stop_reason":null})");
  CHECK(
      minified(p.root["usage"]) ==
      R"({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}})");
}

TEST_CASE("WholeAnswer.HasAllFieldsThatOpenAisSchemaRequiresOfACompletion") {
  const Choice choice = {.index = 1, .text = "x", .finish = FinishReason::kLength};
  const Parsed p(whole_answer(kTextHead, {&choice, 1}, {}));
  CHECK(minified(p.root["object"]) == "\"text_completion\"");
  CHECK(minified(p.root.at_pointer("/choices/0")) ==
        R"({"index":1,"text":"x","logprobs":null,"finish_reason":"length","stop_reason":null})");
}

TEST_CASE("WholeAnswer.ShowsReasoningApartAndNullContentIfThereIsNone") {
  Choice choice = {.text = "", .reasoning = "hm", .has_text = false};
  const Parsed p(whole_answer(kChatHead, {&choice, 1}, {.reasoning_tokens = 4}));
  CHECK(minified(p.root.at_pointer("/choices/0/message")) ==
        R"({"role":"assistant","content":null,"refusal":null,"reasoning_content":"hm"})");
  CHECK(minified(p.root.at_pointer("/usage/completion_tokens_details")) ==
        R"({"reasoning_tokens":4})");
}

TEST_CASE("WholeAnswer.GivesTokenIdsInBothDialects") {
  Choice choice = {
      .text = "x", .show_token_ids = true, .prompt_token_ids = {1, 2}, .token_ids = {3}};
  const Parsed chat(whole_answer(kChatHead, {&choice, 1}, {}));
  CHECK(minified(chat.root["prompt_token_ids"]) == "[1,2]");
  CHECK(minified(chat.root.at_pointer("/choices/0/token_ids")) == "[3]");
  CHECK(minified(chat.root.at_pointer("/choices/0/message/prompt_token_ids")) == "[1,2]");
  CHECK(minified(chat.root.at_pointer("/choices/0/message/completion_token_ids")) == "[3]");
  const Parsed text(whole_answer(kTextHead, {&choice, 1}, {}));
  CHECK(minified(text.root.at_pointer("/choices/0/token_ids")) == "[3]");
  CHECK(minified(text.root.at_pointer("/choices/0/prompt_token_ids")) == "[1,2]");
  CHECK(minified(text.root.at_pointer("/choices/0/completion_token_ids")) == "[3]");
}

TEST_CASE("WholeAnswer.ShowsChatLogprobsWithBytesAndTop") {
  Choice choice = {.text = "é"};
  choice.logprobs.emplace();
  choice.logprobs->push_back(
      entry("é", -0.5f, 0, {{"é", "é", -0.5f}, {"token_id:7", std::nullopt, -2}}));
  const Parsed p(whole_answer(kChatHead, {&choice, 1}, {}));
  CHECK(
      minified(p.root.at_pointer("/choices/0/logprobs")) ==
      R"({"content":[{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[)"
      R"({"token":"é","logprob":-0.5,"bytes":[195,169]},{"token":"token_id:7","logprob":-2,"bytes":null}]}],)"
      R"("refusal":null})");
}

TEST_CASE("WholeAnswer.ShowsAskedLogprobsOfAnEmptyAnswerAsAnEmptyList") {
  Choice choice = {.text = ""};
  choice.logprobs.emplace();
  const Parsed chat(whole_answer(kChatHead, {&choice, 1}, {}));
  CHECK(minified(chat.root.at_pointer("/choices/0/logprobs")) ==
        R"({"content":[],"refusal":null})");
  const Parsed text(whole_answer(kTextHead, {&choice, 1}, {}));
  CHECK(minified(text.root.at_pointer("/choices/0/logprobs")) ==
        R"({"text_offset":[],"token_logprobs":[],"tokens":[],"top_logprobs":[]})");
}

TEST_CASE("WholeAnswer.ShowsCompletionLogprobsWithOffsetsAndTheSampledTokenAmongTheTop") {
  Choice choice = {.text = "ab"};
  choice.logprobs.emplace();
  LogprobEntry first = entry("p", 0, 0);
  first.has_logprob = false;
  choice.logprobs->push_back(first);
  choice.logprobs->push_back(entry("a", -3, 1, {{"x", "x", -0.25f}, {"x", "x", -1}}));
  const Parsed p(whole_answer(kTextHead, {&choice, 1}, {}));
  CHECK(minified(p.root.at_pointer("/choices/0/logprobs")) ==
        R"({"text_offset":[0,1],"token_logprobs":[null,-3],"tokens":["p","a"],)"
        R"("top_logprobs":[null,{"x":-0.25,"a":-3}]})");
}

TEST_CASE("WholeAnswer.ShowsMinusInfinityAsANumber") {
  Choice choice = {.text = "a"};
  choice.logprobs.emplace();
  choice.logprobs->push_back(entry("a", -std::numeric_limits<float>::infinity(), 0));
  const Parsed p(whole_answer(kChatHead, {&choice, 1}, {}));
  CHECK(minified(p.root.at_pointer("/choices/0/logprobs/content/0/logprob")) == "-9999");
}

TEST_CASE("WholeAnswer.ShowsPromptLogprobsByTokenId") {
  Choice choice = {.text = "a"};
  choice.prompt_logprobs = PromptLogprobs{{}, {{5, -1.5f, 2, "x"}, {6, -0.5f, 1, "y"}}};
  const Parsed p(whole_answer(kTextHead, {&choice, 1}, {}));
  CHECK(minified(p.root.at_pointer("/choices/0/prompt_logprobs")) ==
        R"([null,{"5":{"logprob":-1.5,"rank":2,"decoded_token":"x"},)"
        R"("6":{"logprob":-0.5,"rank":1,"decoded_token":"y"}}])");
}

TEST_CASE("ChunkWriter.StreamsAChatAsOpeningDeltasAndEnd") {
  const ChunkWriter writer(kChatHead, false);
  std::string event;
  writer.append_opening(&event, 0, nullptr, nullptr);
  const Parsed opening(payload(event));
  CHECK(minified(opening.root["object"]) == "\"chat.completion.chunk\"");
  CHECK(
      minified(opening.root["choices"]) ==
      R"([{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}])");
  CHECK(opening.root["usage"].error() == simdjson::NO_SUCH_FIELD);

  event.clear();
  writer.append_delta(&event, {.index = 0, .text = "a\nb"});
  CHECK(minified(Parsed(payload(event)).root["choices"]) ==
        R"([{"index":0,"delta":{"content":"a\nb"},"logprobs":null,"finish_reason":null}])");

  event.clear();
  const StopReason stop = std::string("END");
  writer.append_delta(&event, {.index = 0, .finish = FinishReason::kStop, .stop_reason = &stop});
  CHECK(minified(Parsed(payload(event)).root["choices"]) ==
        R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":"END"}])");

  event.clear();
  ChunkWriter::append_done(&event);
  CHECK(event == "data: [DONE]\n\n");
}

TEST_CASE("ChunkWriter.ShowsUsageOnlyInTheLastChunkWhenAskedForIt") {
  const ChunkWriter writer(kTextHead, true);
  std::string event;
  writer.append_delta(&event, {.index = 2, .text = "x"});
  const Parsed delta(payload(event));
  CHECK(minified(delta.root["usage"]) == "null");
  CHECK(minified(delta.root["choices"]) ==
        R"([{"index":2,"text":"x","logprobs":null,"finish_reason":null}])");

  event.clear();
  writer.append_usage(&event, {.prompt_tokens = 1, .completion_tokens = 2});
  const Parsed usage(payload(event));
  CHECK(minified(usage.root["choices"]) == "[]");
  CHECK(minified(usage.root["usage"]["total_tokens"]) == "3");

  event.clear();
  const Usage so_far = {.prompt_tokens = 1, .completion_tokens = 1};
  writer.append_delta(&event, {.text = "x", .usage = &so_far});
  CHECK(minified(Parsed(payload(event)).root["usage"]["completion_tokens"]) == "1");
}

TEST_CASE("ChunkWriter.StreamsReasoningLogprobsAndTokenIds") {
  const ChunkWriter writer(kChatHead, false);
  const std::vector<LogprobEntry> logprobs = {entry("a", -1, 0)};
  const std::vector<TokenId> ids = {7};
  const std::vector<TokenId> prompt = {1, 2};
  std::string event;
  writer.append_opening(&event, 1, &prompt, nullptr);
  const Parsed opening(payload(event));
  CHECK(minified(opening.root["prompt_token_ids"]) == "[1,2]");
  CHECK(minified(opening.root.at_pointer("/choices/0/delta/prompt_token_ids")) == "[1,2]");

  event.clear();
  writer.append_delta(&event,
                      {.index = 1,
                       .text = "b",
                       .reasoning = "r",
                       .logprobs = logprobs,
                       .token_ids = ids,
                       .show_token_ids = true});
  const Parsed delta(payload(event));
  CHECK(minified(delta.root.at_pointer("/choices/0/delta")) ==
        R"({"reasoning_content":"r","content":"b","completion_token_ids":[7]})");
  CHECK(minified(delta.root.at_pointer("/choices/0/token_ids")) == "[7]");
  CHECK(minified(delta.root.at_pointer("/choices/0/logprobs/content/0/token")) == "\"a\"");

  event.clear();
  const ChunkWriter text(kTextHead, false);
  text.append_delta(
      &event, {.text = "b", .token_ids = ids, .show_token_ids = true, .prompt_token_ids = &prompt});
  const Parsed first(payload(event));
  CHECK(minified(first.root.at_pointer("/choices/0/prompt_token_ids")) == "[1,2]");
  CHECK(minified(first.root.at_pointer("/choices/0/completion_token_ids")) == "[7]");
}

TEST_CASE("ChunkWriter.SendsAnErrorInsideAStreamInOpenAisShape") {
  std::string event;
  ChunkWriter::append_error(&event, {unavailable("the rank is gone")});
  const Parsed p(payload(event));
  CHECK(minified(p.root.at_pointer("/error/type")) == "\"service_unavailable_error\"");
  CHECK(minified(p.root.at_pointer("/error/message")) == "\"the rank is gone\"");
}

TEST_CASE("RandomRequestId.DiffersEachTime") {
  CHECK(random_request_id().size() == 32);
  CHECK(random_request_id() != random_request_id());
}

}  // namespace
}  // namespace flotilla::openai
