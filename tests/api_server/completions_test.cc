// POST /v1/completions over sockets.
#include "tests/api_server/api_test_server.h"

namespace flotilla {
namespace {

constexpr std::string_view kPath = "/v1/completions";

std::string completion(const std::string& fields = "", const std::string& prompt = "\"hi\"") {
  return R"({"prompt":)" + prompt + (fields.empty() ? "" : "," + fields) + "}";
}

TEST_CASE("Completion.AnswersWholeInOpenAisShape") {
  ApiTestServer api([](const GenerationRequest&) {
    return FakeScript{
        .tokens = byte_ids(" there"), .finish = FinishReason::kLength, .cached_tokens = 1};
  });
  api.run();
  const JsonText json(api.post(kPath, completion()).body);
  CHECK(json.text("/id").starts_with("cmpl-"));
  CHECK(json.text("/object") == "text_completion");
  CHECK(
      json.at("/choices/0") ==
      R"({"index":0,"text":" there","logprobs":null,"finish_reason":"length","stop_reason":null})");
  CHECK(
      json.at("/usage") ==
      R"({"prompt_tokens":2,"completion_tokens":6,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":1}})");
}

TEST_CASE("Completion.TakesSeveralPromptsTimesN") {
  ApiTestServer api([](const GenerationRequest& r) {
    const auto last = static_cast<char>(r.prompt.back());
    return says(std::string{last, static_cast<char>('0' + r.choice)}, FinishReason::kLength)(r);
  });
  api.run();
  const JsonText json(api.post(kPath, completion(R"("n":2,"seed":3)", R"(["xa",[120,98]])")).body);
  CHECK(json.text("/choices/0/text") == "a0");
  CHECK(json.text("/choices/1/text") == "a1");
  CHECK(json.text("/choices/2/text") == "b0");
  CHECK(json.text("/choices/3/text") == "b1");
  CHECK(json.at("/choices/3/index") == "3");
  CHECK(json.at("/usage/prompt_tokens") == "4");
  CHECK(json.at("/usage/completion_tokens") == "8");
}

TEST_CASE("Completion.StreamsSeveralChoicesEachWithOneFinish") {
  ApiTestServer api(says("abc", FinishReason::kLength));
  api.run();
  const auto events =
      events_of(api.post(kPath, completion(R"("n":2,"stream":true)", R"(["x","y"])")).body);
  std::string texts[4];
  int finishes[4] = {};
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const JsonText chunk(events[i]);
    CHECK(chunk.text("/object") == "text_completion");
    const size_t k = std::stoull(chunk.at("/choices/0/index"));
    texts[k] += chunk.text("/choices/0/text");
    finishes[k] += chunk.text("/choices/0/finish_reason") == "length";
  }
  CHECK(events.back() == "[DONE]");
  for (size_t k = 0; k < 4; ++k) {
    CHECK(texts[k] == "abc");
    CHECK(finishes[k] == 1);
  }
}

TEST_CASE("Completion.EchoesThePromptWithItsLogprobs") {
  ApiTestServer api(says("!", FinishReason::kLength));
  api.run();
  const std::string fields = R"("echo":true,"logprobs":1)";
  const JsonText whole(api.post(kPath, completion(fields, "\"\xC3\xA9x\"")).body);
  CHECK(whole.text("/choices/0/text") == "\xC3\xA9x!");
  CHECK(whole.at("/choices/0/logprobs/text_offset") == "[0,0,1,2]");
  // Two halves of a letter, x, and what was produced.
  CHECK(whole.at("/choices/0/logprobs/token_logprobs") == "[null,-0.5,-0.5,-1.5]");
  CHECK(whole.at("/choices/0/logprobs/tokens/2") == "\"x\"");
  CHECK(whole.at("/choices/0/logprobs/top_logprobs/0") == "null");
  CHECK(whole.at("/choices/0/logprobs/top_logprobs/3") == R"({"!":-0.25})");
  CHECK(api.dispatcher.submitted().at(0).sampling.prompt_logprobs == 1);

  std::string text, offsets;
  for (const std::string& event :
       events_of(api.post(kPath, completion(fields + R"(,"stream":true)", "\"\xC3\xA9x\"")).body)) {
    if (event == "[DONE]") continue;
    const JsonText chunk(event);
    text += chunk.text("/choices/0/text");
    offsets += chunk.at("/choices/0/logprobs/text_offset");
  }
  CHECK(text == "\xC3\xA9x!");
  CHECK(offsets == "[0,0,1][2]");
}

TEST_CASE("Completion.EchoesTokenIdsAsText") {
  ApiTestServer api(says("!", FinishReason::kLength));
  api.run();
  const JsonText json(api.post(kPath, completion(R"("echo":true)", "[104,105]")).body);
  CHECK(json.text("/choices/0/text") == "hi!");
  CHECK(json.at("/choices/0/logprobs") == "null");
}

TEST_CASE("Completion.OnlyEchoesWithMaxTokensZero") {
  ApiTestServer api(says("unwanted"));
  api.run(std::chrono::microseconds(100));
  const JsonText json(
      api.post(kPath, completion(R"("echo":true,"logprobs":0,"max_tokens":0)")).body);
  CHECK(json.text("/choices/0/text") == "hi");
  CHECK(json.text("/choices/0/finish_reason") == "length");
  CHECK(json.at("/choices/0/logprobs/token_logprobs") == "[null,-0.25]");
  CHECK(json.at("/usage/completion_tokens") == "0");
}

TEST_CASE("Completion.ShowsPromptLogprobsAsVllmDoes") {
  ApiTestServer api(says("!", FinishReason::kLength));
  api.run();
  const JsonText json(api.post(kPath, completion(R"("prompt_logprobs":1,"logprobs":3)")).body);
  CHECK(json.at("/choices/0/prompt_logprobs/0") == "null");
  CHECK(json.at("/choices/0/prompt_logprobs/1") ==
        R"({"105":{"logprob":-0.25,"rank":1,"decoded_token":"i"}})");
  CHECK(json.at("/choices/0/logprobs/tokens") == R"(["!"])");
}

TEST_CASE("Completion.GivesTokenIdsInBothDialectsStreamedAndWhole") {
  ApiTestServer api(says("ab", FinishReason::kLength));
  api.run();
  const JsonText whole(api.post(kPath, completion(R"("return_token_ids":true)")).body);
  CHECK(whole.at("/choices/0/prompt_token_ids") == "[104,105]");
  CHECK(whole.at("/choices/0/token_ids") == "[97,98]");
  CHECK(whole.at("/choices/0/completion_token_ids") == "[97,98]");
  const auto events =
      events_of(api.post(kPath, completion(R"("return_token_ids":true,"stream":true)")).body);
  CHECK(JsonText(events[0]).at("/choices/0/prompt_token_ids") == "[104,105]");
  CHECK(JsonText(events.at(events.size() - 2)).at("/choices/0/prompt_token_ids").empty());
}

TEST_CASE("Completion.RefusesAPromptWithoutTokens") {
  ApiTestServer api(says("x"));
  const ClientResponse r = api.post(kPath, completion("", "\"\""));
  CHECK(r.status == 400);
  CHECK(JsonText(r.body).text("/error/message").find("no tokens") != std::string::npos);
}

TEST_CASE("Completion.RefusesATooLongPromptWithItsLengthAndTheLimit") {
  ApiTestServer api(says("x"));
  const ClientResponse r = api.post(kPath, completion("", '"' + std::string(5000, 'x') + '"'));
  CHECK(r.status == 400);
  const JsonText json(r.body);
  CHECK(json.text("/error/code") == "context_length_exceeded");
  CHECK(json.text("/error/message").find("5000 tokens") != std::string::npos);
  CHECK(json.text("/error/message").find("4096") != std::string::npos);
  CHECK(api.dispatcher.submitted().empty());
}

TEST_CASE("Completion.BansABadWordAsItStandsAndBehindASpace") {
  ApiTestServer api(says("x"));
  api.run();
  api.post(kPath, completion(R"("bad_words":["a"," bc","\ud83d\ude00"])"));
  // A byte tokenizer makes the spaced form longer, so only the bare one counts.
  CHECK(api.dispatcher.submitted().at(0).sampling.bad_words ==
        std::vector<std::vector<TokenId>>{
            byte_ids("a"), byte_ids("bc"), byte_ids("\xF0\x9F\x98\x80")});
}

}  // namespace
}  // namespace flotilla
