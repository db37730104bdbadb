// POST /v1/chat/completions over sockets.
#include <random>

#include "tests/api_server/api_test_server.h"

namespace flotilla {
namespace {

constexpr std::string_view kPath = "/v1/chat/completions";

std::string chat(const std::string& fields = "", const std::string& content = "hi") {
  return R"({"messages":[{"role":"user","content":")" + content + "\"}]" +
         (fields.empty() ? "" : "," + fields) + "}";
}

TEST_CASE("Chat.AnswersWholeInOpenAisShape") {
  ApiTestServer api(says("Hello!"));
  api.run();
  const ClientResponse r = api.post(kPath, chat());
  CHECK(r.status == 200);
  CHECK(r.header("Content-Type") == "application/json");
  const JsonText json(r.body);
  CHECK(json.text("/id").starts_with("chatcmpl-"));
  CHECK(json.text("/object") == "chat.completion");
  CHECK(json.text("/model") == "/models/test-model");
  CHECK(
      json.at("/choices/0") ==
      R"({"index":0,"message":{"role":"assistant","content":"Hello!","refusal":null},"logprobs":null,)"
      R"("finish_reason":"stop","stop_reason":null})");
  // "user: hi\nassistant: " and six letters with the end token.
  CHECK(
      json.at("/usage") ==
      R"({"prompt_tokens":20,"completion_tokens":7,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0}})");
  const GenerationRequest asked = api.dispatcher.submitted().at(0);
  CHECK(asked.prompt == byte_ids("user: hi\nassistant: "));
  CHECK(asked.sampling.max_tokens == 4096 - 20);
}

TEST_CASE("Chat.StreamsRoleTextFinishAndDone") {
  ApiTestServer api(says("Hello!"));
  api.run();
  const ClientResponse r = api.post(kPath, chat(R"("stream":true)"));
  CHECK(r.status == 200);
  CHECK(r.header("Content-Type") == "text/event-stream");
  CHECK(r.header("X-Accel-Buffering") == "no");
  const std::vector<std::string> events = events_of(r.body);
  REQUIRE(events.size() >= 3);
  CHECK(events.back() == "[DONE]");
  std::string text;
  int finishes = 0;
  const JsonText first(events.front());
  CHECK(first.at("/choices/0/delta") == R"({"role":"assistant","content":""})");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const JsonText chunk(events[i]);
    CHECK(chunk.text("/id") == first.text("/id"));
    CHECK(chunk.at("/created") == first.at("/created"));
    CHECK(chunk.text("/model") == first.text("/model"));
    CHECK(chunk.text("/object") == "chat.completion.chunk");
    CHECK(chunk.at("/usage").empty());
    text += chunk.text("/choices/0/delta/content");
    if (chunk.at("/choices/0/finish_reason") != "null") {
      ++finishes;
      CHECK(i + 2 == events.size());
      CHECK(chunk.text("/choices/0/finish_reason") == "stop");
    }
  }
  CHECK(text == "Hello!");
  CHECK(finishes == 1);
}

TEST_CASE("Chat.SendsUsageInTheLastChunkOnlyWhenAskedFor") {
  ApiTestServer api(says("ab"));
  api.run();
  const auto events = events_of(
      api.post(kPath, chat(R"("stream":true,"stream_options":{"include_usage":true})")).body);
  for (size_t i = 0; i + 2 < events.size(); ++i) CHECK(JsonText(events[i]).at("/usage") == "null");
  const JsonText last(events.at(events.size() - 2));
  CHECK(last.at("/choices") == "[]");
  CHECK(last.at("/usage/completion_tokens") == "3");
  CHECK(events.back() == "[DONE]");
}

TEST_CASE("Chat.SendsRunningUsageInEveryChunkOnRequest") {
  ApiTestServer api(says("ab"));
  api.run();
  const auto events = events_of(
      api.post(
             kPath,
             chat(
                 R"("stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})"))
          .body);
  uint64_t before = 0;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const uint64_t now = std::stoull(JsonText(events[i]).at("/usage/completion_tokens"));
    CHECK(now >= before);
    before = now;
  }
  CHECK(before == 3);
}

TEST_CASE("Chat.GivesNChoicesWithOneSeedAndDifferentChoiceNumbers") {
  ApiTestServer api([](const GenerationRequest& r) {
    return says(std::string(1, static_cast<char>('a' + r.choice)))(r);
  });
  api.run();
  const JsonText json(api.post(kPath, chat(R"("n":3,"seed":99)")).body);
  CHECK(json.text("/choices/0/message/content") == "a");
  CHECK(json.text("/choices/2/message/content") == "c");
  CHECK(json.at("/choices/2/index") == "2");
  CHECK(json.at("/usage/prompt_tokens") == "20");
  CHECK(json.at("/usage/completion_tokens") == "6");
  for (const GenerationRequest& r : api.dispatcher.submitted()) CHECK(r.seed == 99);
}

TEST_CASE("Chat.DrawsOneSeedPerRequestIfNoneIsGiven") {
  ApiTestServer api(says("x"));
  api.run();
  api.post(kPath, chat(R"("n":2)"));
  api.post(kPath, chat());
  const auto submitted = api.dispatcher.submitted();
  REQUIRE(submitted.size() == 3);
  CHECK(submitted[0].seed == submitted[1].seed);
  CHECK(submitted[0].seed != submitted[2].seed);
}

TEST_CASE("Chat.DrawsTheSameSeedsAgainWithASeededServer") {
  AppOptions options;
  options.serving.seed = 5;
  std::vector<uint64_t> seeds[2];
  for (auto& drawn : seeds) {
    ApiTestServer api(says("x"), options);
    api.run();
    api.post(kPath, chat());
    api.post(kPath, chat());
    for (const auto& r : api.dispatcher.submitted()) drawn.push_back(r.seed);
  }
  CHECK(seeds[0] == seeds[1]);
  CHECK(seeds[0][0] != seeds[0][1]);
}

TEST_CASE("Chat.CancelsTheEngineAtAStopString") {
  ApiTestServer api(says("one STOP two three four"));
  api.dispatcher.tokens_per_step = [](uint64_t) { return 2; };
  api.run(std::chrono::microseconds(200));
  const JsonText json(api.post(kPath, chat(R"("stop":["STOP"])")).body);
  CHECK(json.text("/choices/0/message/content") == "one ");
  CHECK(json.text("/choices/0/finish_reason") == "stop");
  CHECK(json.text("/choices/0/stop_reason") == "STOP");
  CHECK(api.dispatcher.cancelled().size() == 1);
  CHECK(json.at("/usage/completion_tokens") == "8");
}

TEST_CASE("Chat.PassesEverySamplingFieldToTheEngine") {
  ApiTestServer api(says("x"));
  api.run();
  api.post(kPath, chat(R"("temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"presence_penalty":1,
      "frequency_penalty":-1,"repetition_penalty":1.5,"max_tokens":9,"min_tokens":2,"logit_bias":{"5":-3},
      "bad_words":["no"],"bad_words_token_ids":[7],"stop_token_ids":[8],"ignore_eos":true,"logprobs":true,
      "top_logprobs":4,"request_id":"mine")"));
  const GenerationRequest r = api.dispatcher.submitted().at(0);
  const SamplingParams& s = r.sampling;
  CHECK(r.request_id == "mine");
  CHECK(s.temperature == 0.5f);
  CHECK(s.top_p == 0.9f);
  CHECK(s.top_k == 40);
  CHECK(s.min_p == 0.1f);
  CHECK(s.presence_penalty == 1);
  CHECK(s.frequency_penalty == -1);
  CHECK(s.repetition_penalty == 1.5f);
  CHECK(s.max_tokens == 9);
  CHECK(s.min_tokens == 2);
  CHECK(s.logit_bias.at(0).token == 5);
  CHECK(s.bad_words == std::vector<std::vector<TokenId>>{{7}, byte_ids("no")});
  CHECK(s.stop_token_ids == std::vector<TokenId>{8});
  CHECK(s.ignore_eos);
  CHECK(s.logprobs == 4);
  CHECK(s.prompt_logprobs == -1);
}

TEST_CASE("Chat.TakesTheModelsDefaultsForWhatTheRequestLeavesOut") {
  ApiTestServer api(says("x"),
                    {},
                    {.temperature = 0.25,
                     .top_p = {},
                     .top_k = 3,
                     .min_p = {},
                     .repetition_penalty = {},
                     .max_new_tokens = {}});
  api.run();
  api.post(kPath, chat());
  api.post(kPath, chat(R"("temperature":0.75)"));
  CHECK(api.dispatcher.submitted().at(0).sampling.temperature == 0.25f);
  CHECK(api.dispatcher.submitted().at(0).sampling.top_k == 3);
  CHECK(api.dispatcher.submitted().at(1).sampling.temperature == 0.75f);
}

TEST_CASE("Chat.ShowsLogprobsInStepWithTheText") {
  ApiTestServer api(says("h\xC3\xA9"));
  api.run();
  const JsonText json(api.post(kPath, chat(R"("logprobs":true,"top_logprobs":1)")).body);
  CHECK(json.at("/choices/0/logprobs/content/0/token") == "\"h\"");
  CHECK(json.at("/choices/0/logprobs/content/0/bytes") == "[104]");
  CHECK(json.at("/choices/0/logprobs/content/1/bytes") == "[195]");
  CHECK(json.at("/choices/0/logprobs/content/2/top_logprobs/0/bytes") == "[169]");
  CHECK(json.at("/choices/0/logprobs/refusal") == "null");
}

TEST_CASE("Chat.GivesTokenIdsInBothDialectsStreamedAndWhole") {
  ApiTestServer api(says("ab"));
  api.run();
  const JsonText whole(api.post(kPath, chat(R"("return_token_ids":true)")).body);
  CHECK(whole.at("/choices/0/token_ids") == "[97,98,256]");
  CHECK(whole.at("/choices/0/message/completion_token_ids") == "[97,98,256]");
  CHECK(whole.at("/choices/0/message/prompt_token_ids") == whole.at("/prompt_token_ids"));
  const auto events =
      events_of(api.post(kPath, chat(R"("return_token_ids":true,"stream":true)")).body);
  CHECK(JsonText(events[0]).at("/prompt_token_ids") == whole.at("/prompt_token_ids"));
  std::string ids;
  for (size_t i = 1; i + 1 < events.size(); ++i) {
    const JsonText chunk(events[i]);
    CHECK(chunk.at("/choices/0/delta/completion_token_ids") == chunk.at("/choices/0/token_ids"));
    std::string list = chunk.at("/choices/0/token_ids");
    list = list.substr(1, list.size() - 2);
    if (!list.empty()) ids += (ids.empty() ? "" : ",") + list;
  }
  CHECK("[" + ids + "]" == whole.at("/choices/0/token_ids"));
}

TEST_CASE("Chat.SplitsReasoningStreamedAndWhole") {
  AppOptions options;
  options.serving.reasoning_parser = "qwen3";
  ApiTestServer api(
      [](const GenerationRequest&) {
        FakeScript script;
        script.tokens = {kByteThink};
        for (const TokenId id : byte_ids("\nbecause\n")) script.tokens.push_back(id);
        script.tokens.push_back(kByteEndThink);
        for (const TokenId id : byte_ids("\n\nso")) script.tokens.push_back(id);
        return script;
      },
      options);
  api.run();
  const JsonText whole(api.post(kPath, chat()).body);
  CHECK(whole.text("/choices/0/message/reasoning_content") == "because");
  CHECK(whole.text("/choices/0/message/content") == "so");
  CHECK(whole.at("/usage/completion_tokens_details/reasoning_tokens") == "10");
  std::string reasoning, content;
  for (const std::string& event : events_of(api.post(kPath, chat(R"("stream":true)")).body)) {
    if (event == "[DONE]") continue;
    const JsonText chunk(event);
    reasoning += chunk.text("/choices/0/delta/reasoning_content");
    content += chunk.text("/choices/0/delta/content");
  }
  CHECK(reasoning == "because");
  CHECK(content == "so");
  const JsonText cut(api.post(kPath, chat(R"("max_tokens":4)")).body);
  CHECK(cut.at("/choices/0/message/content") == "null");
  CHECK(cut.text("/choices/0/finish_reason") == "length");
}

TEST_CASE("Chat.PassesTemplateVariablesAndShowsTheTemplatesOwnComplaint") {
  ApiTestServer api(says("x"));
  api.run();
  api.post(kPath, chat(R"("chat_template_kwargs":{"enable_thinking":false})"));
  CHECK(api.dispatcher.submitted().at(0).prompt == byte_ids("user: hi\nquick assistant: "));
  api.post(kPath, chat(R"("add_generation_prompt":false)"));
  CHECK(api.dispatcher.submitted().at(1).prompt == byte_ids("user: hi\n"));
  const ClientResponse raised = api.post(kPath, chat("", "raise"));
  CHECK(raised.status == 400);
  CHECK(JsonText(raised.body).text("/error/message").find("no such talk") != std::string::npos);
  const ClientResponse reserved =
      api.post(kPath, chat(R"("chat_template_kwargs":{"messages":[]})"));
  CHECK(reserved.status == 400);
}

TEST_CASE("Chat.TakesAPromptWithoutTheTemplate") {
  ApiTestServer api(says("x"));
  api.run();
  api.post(kPath, chat(R"("disable_chat_template":true)"));
  api.post(kPath, R"({"messages":[104,105]})");
  api.post(kPath, R"({"prompt_token_ids":[104,105]})");
  for (const auto& r : api.dispatcher.submitted()) CHECK(r.prompt == byte_ids("hi"));
}

TEST_CASE("Chat.RefusesChatsOfAModelWithoutATemplate") {
  MetricsRegistry registry;
  FakeDispatcher dispatcher(says("x"));
  const auto tokenizer = make_byte_tokenizer();
  App app({.dispatcher = dispatcher, .tokenizer = tokenizer.get(), .registry = registry}, {});
  HttpServer server(app_http_options(&app));
  register_routes(server, app);
  REQUIRE(server.start(listen_on("127.0.0.1", 0).value()).ok());
  RawClient client(server.port());
  REQUIRE(client.send(ApiTestServer::request_text("POST", kPath, chat())));
  const auto response = client.read_response();
  REQUIRE(response);
  CHECK(response->status == 400);
  CHECK(JsonText(response->body).text("/error/code") == "no_chat_template");
}

TEST_CASE("Chat.ResumesBehindTokensProducedBefore") {
  ApiTestServer api(says("rest"));
  api.run();
  const JsonText json(
      api.post(kPath, chat(R"("completion_token_ids":[97,98],"max_tokens":3,"min_tokens":1)"))
          .body);
  CHECK(json.text("/choices/0/message/content") == "res");
  CHECK(json.at("/usage/prompt_tokens") == "22");
  CHECK(json.at("/usage/completion_tokens") == "3");
  const GenerationRequest r = api.dispatcher.submitted().at(0);
  CHECK(r.produced == std::vector<TokenId>{97, 98});
  CHECK(r.sampling.max_tokens == 5);
  CHECK(r.sampling.min_tokens == 3);
}

TEST_CASE("Chat.BundlesTokensIntoChunksOfTheSizeAskedFor") {
  ApiTestServer api(says("abcdefgh", FinishReason::kLength));
  api.run(std::chrono::milliseconds(1));
  const auto events =
      events_of(api.post(kPath, chat(R"("stream":true,"max_streaming_response_tokens":4)")).body);
  std::string text;
  for (size_t i = 1; i + 1 < events.size(); ++i) {
    const JsonText chunk(events[i]);
    const std::string piece = chunk.text("/choices/0/delta/content");
    if (chunk.at("/choices/0/finish_reason") == "null") CHECK(piece.size() >= 4);
    text += piece;
  }
  CHECK(text == "abcdefgh");
}

// Streamed or whole, however the engine cuts its steps: the same text, reasons, counts and log
// probabilities.
TEST_CASE("Chat.GivesTheSameAnswerStreamedAndWholeForAnyChunking") {
  std::mt19937 random(11);
  for (int round = 0; round < 25; ++round) {
    std::string text;
    for (unsigned n = random() % 40; n > 0; --n) {
      static const char* kPieces[] = {
          "a", "END", "EN", "\xC3\xA9", "\xF0\x9F\x98\x80", "\xE2\x82", " ", "stop"};
      text += kPieces[random() % 8];
    }
    ApiTestServer api(says(text, random() % 2 ? FinishReason::kStop : FinishReason::kLength));
    const uint32_t seed = random();
    api.dispatcher.tokens_per_step = [seed](uint64_t step) {
      return static_cast<uint32_t>((seed >> (step % 16)) % 5);
    };
    api.run(std::chrono::microseconds(50));
    const std::string fields =
        R"("n":2,"logprobs":true,"return_token_ids":true,"stop":["END","stop"])";
    const JsonText whole(api.post(kPath, chat(fields)).body);
    const auto events = events_of(
        api.post(kPath, chat(fields + R"(,"stream":true,"stream_options":{"include_usage":true})"))
            .body);
    std::string texts[2], reasons[2], tokens[2], whole_tokens[2];
    for (size_t i = 0; i + 2 < events.size(); ++i) {
      const JsonText chunk(events[i]);
      const size_t k = std::stoull(chunk.at("/choices/0/index"));
      texts[k] += chunk.text("/choices/0/delta/content");
      reasons[k] += chunk.text("/choices/0/finish_reason");
      for (int t = 0;; ++t) {
        const std::string entry = chunk.at("/choices/0/logprobs/content/" + std::to_string(t));
        if (entry.empty()) break;
        tokens[k] += entry;
      }
    }
    for (size_t k = 0; k < 2; ++k) {
      const std::string choice = "/choices/" + std::to_string(k);
      CAPTURE(text);
      CHECK(texts[k] == whole.text(choice + "/message/content"));
      CHECK(reasons[k] == whole.text(choice + "/finish_reason"));
      for (int t = 0;; ++t) {
        const std::string entry = whole.at(choice + "/logprobs/content/" + std::to_string(t));
        if (entry.empty()) break;
        whole_tokens[k] += entry;
      }
      CHECK(tokens[k] == whole_tokens[k]);
    }
    CHECK(JsonText(events.at(events.size() - 2)).at("/usage") == whole.at("/usage"));
  }
}

}  // namespace
}  // namespace flotilla
