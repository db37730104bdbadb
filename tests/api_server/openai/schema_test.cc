#include "api_server/openai/schema.h"

#include <doctest/doctest.h>

namespace flotilla::openai {
namespace {

constexpr SchemaLimits kLimits = {.vocab_size = 1000};

// {"messages":[{"role":"user","content":"hi"}], …}
std::string chat(const std::string& fields) {
  return R"({"messages":[{"role":"user","content":"hi"}])" + (fields.empty() ? "" : "," + fields) +
         "}";
}
std::string completion(const std::string& fields) {
  return R"({"prompt":"hi")" + (fields.empty() ? "" : "," + fields) + "}";
}
ChatRequest good_chat(const std::string& body) {
  CAPTURE(body);
  auto request = parse_chat_request(body, kLimits);
  REQUIRE_MESSAGE(request.ok(), request.error().status.message());
  return std::move(request).value();
}
CompletionRequest good_completion(const std::string& body) {
  CAPTURE(body);
  auto request = parse_completion_request(body, kLimits);
  REQUIRE_MESSAGE(request.ok(), request.error().status.message());
  return std::move(request).value();
}
ApiError bad_chat(const std::string& body) {
  CAPTURE(body);
  auto request = parse_chat_request(body, kLimits);
  REQUIRE_FALSE(request.ok());
  CHECK(request.error().status.code() == StatusCode::kInvalidArgument);
  return request.error();
}
ApiError bad_completion(const std::string& body) {
  CAPTURE(body);
  auto request = parse_completion_request(body, kLimits);
  REQUIRE_FALSE(request.ok());
  CHECK(request.error().status.code() == StatusCode::kInvalidArgument);
  return request.error();
}
bool contains(const ApiError& error, const std::string& part) {
  return error.status.message().find(part) != std::string::npos;
}
std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST_CASE("ParseChat.ReadsAMinimalRequestWithDefaults") {
  const ChatRequest r = good_chat(chat(""));
  REQUIRE(r.messages.size() == 1);
  CHECK(r.messages[0].role == Role::kUser);
  CHECK(r.messages[0].content == "hi");
  CHECK(r.common.model == "default");
  CHECK(r.common.n == 1);
  CHECK_FALSE(r.common.stream);
  CHECK_FALSE(r.common.include_usage);
  CHECK_FALSE(r.common.logprobs);
  CHECK_FALSE(r.common.sampling.temperature);
  CHECK_FALSE(r.common.sampling.max_tokens);
}

TEST_CASE("ParseChat.ReadsEveryField") {
  const ChatRequest r = good_chat(chat(R"(
      "model":"m","n":3,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"presence_penalty":-2,
      "frequency_penalty":2,"repetition_penalty":1.1,"seed":7,"max_tokens":5,"max_completion_tokens":6,
      "min_tokens":2,"logit_bias":{"3":-100,"4":1.5},"bad_words":["x"],"bad_words_token_ids":[9],
      "stop":["a","b"],"stop_token_ids":[1,2],"ignore_eos":true,"include_stop_str_in_output":true,
      "skip_special_tokens":false,"stream":true,
      "stream_options":{"include_usage":true,"continuous_usage_stats":true},"logprobs":true,
      "top_logprobs":2,"request_id":"abc","return_token_ids":true,"include_logprobs_decode_token":false,
      "max_streaming_response_tokens":4,"completion_token_ids":null,"user":"u","metadata":{"a":"b"},
      "chat_template_kwargs":{"enable_thinking":false},"add_generation_prompt":false,
      "disable_chat_template":true,"tools":[],"tool_choice":"none","response_format":{"type":"text"})"));
  const SamplingFields& s = r.common.sampling;
  CHECK(r.common.model == "m");
  CHECK(r.common.n == 3);
  CHECK(s.temperature == 0.5);
  CHECK(s.top_p == 0.9);
  CHECK(s.top_k == 40);
  CHECK(s.min_p == 0.1);
  CHECK(s.presence_penalty == -2);
  CHECK(s.frequency_penalty == 2);
  CHECK(s.repetition_penalty == 1.1);
  CHECK(s.seed == 7);
  CHECK(s.max_tokens == 6);
  CHECK(s.min_tokens == 2);
  REQUIRE(s.logit_bias.size() == 2);
  CHECK(s.logit_bias[0].token == 3);
  CHECK(s.logit_bias[1].bias == 1.5f);
  CHECK(s.bad_words == std::vector<std::string>{"x"});
  CHECK(s.bad_words_token_ids == std::vector<TokenId>{9});
  CHECK(s.stop == std::vector<std::string>{"a", "b"});
  CHECK(s.stop_token_ids == std::vector<TokenId>{1, 2});
  CHECK(s.ignore_eos);
  CHECK(s.include_stop_str_in_output);
  CHECK_FALSE(s.skip_special_tokens);
  CHECK(r.common.stream);
  CHECK(r.common.include_usage);
  CHECK(r.common.continuous_usage_stats);
  CHECK(r.common.logprobs == 2);
  CHECK(r.common.request_id == "abc");
  CHECK(r.common.return_token_ids);
  CHECK(r.common.tokens_as_ids);
  CHECK(r.common.tokens_per_chunk == 4);
  CHECK(r.template_kwargs == TemplateKwargs{{"enable_thinking", "false"}});
  CHECK_FALSE(r.add_generation_prompt);
  CHECK(r.disable_chat_template);
}

TEST_CASE("ParseChat.TakesNullInAnyOptionalFieldAsAbsent") {
  const ChatRequest r = good_chat(chat(R"(
      "model":null,"n":null,"temperature":null,"top_p":null,"stop":null,"logit_bias":null,"stream":null,
      "stream_options":null,"logprobs":null,"top_logprobs":null,"tools":null,"tool_choice":null,
      "response_format":null,"seed":null,"max_tokens":null,"user":null,"chat_template_kwargs":null,
      "prompt_logprobs":null,"guided_json":null,"metadata":null)"));
  CHECK(r.common.model == "default");
  CHECK(r.common.n == 1);
}

TEST_CASE("ParseChat.IgnoresUnknownFields") {
  good_chat(chat(R"("no_such_field":{"a":[1,2,{"b":null}]},"priority":3,"service_tier":"auto")"));
}

TEST_CASE("ParseChat.CountsTheLastOfARepeatedName") {
  CHECK(good_chat(chat(R"("n":2,"n":3)")).common.n == 3);
  CHECK(good_chat(chat(R"("stop":["a","b"],"stop":["c"])")).common.sampling.stop ==
        std::vector<std::string>{"c"});
}

TEST_CASE("ParseChat.RefusesValuesOutOfRangeAndNamesFieldValueAndRange") {
  struct Expectation {
    std::string json, param, value, range;
  };
  for (const Expectation& e :
       {Expectation{R"("n":0)", "n", "got 0", "from 1 to 16"},
        {R"("n":17)", "n", "got 17", "from 1 to 16"},
        {R"("n":1.5)", "n", "got 1.5", "an integer"},
        {R"("n":"2")", "n", "got \"2\"", "an integer"},
        {R"("n":true)", "n", "got true", "an integer"},
        {R"("temperature":-0.1)", "temperature", "got -0.1", "at least 0"},
        {R"("temperature":1e300)", "temperature", "got 1e+300", "at least 0"},
        {R"("temperature":"hot")", "temperature", "got \"hot\"", "a number"},
        {R"("top_p":1.1)", "top_p", "got 1.1", "from 0 to 1"},
        {R"("top_p":-1)", "top_p", "got -1", "from 0 to 1"},
        {R"("min_p":2)", "min_p", "got 2", "from 0 to 1"},
        {R"("top_k":-2)", "top_k", "got -2", "from -1"},
        {R"("presence_penalty":2.5)", "presence_penalty", "got 2.5", "from -2 to 2"},
        {R"("frequency_penalty":-3)", "frequency_penalty", "got -3", "from -2 to 2"},
        {R"("repetition_penalty":0)", "repetition_penalty", "got 0", "above 0"},
        {R"("seed":-1)", "seed", "got -1", "from 0 to 922337203685477580"},
        {R"("seed":922337203685477581)", "seed", "922337203685477581", "from 0"},
        {R"("seed":18446744073709551615)", "seed", "18446744073709551615", "from 0"},
        {R"("max_tokens":0)", "max_tokens", "got 0", "from 1"},
        {R"("max_completion_tokens":-5)", "max_completion_tokens", "got -5", "from 1"},
        {R"("min_tokens":-1)", "min_tokens", "got -1", "from 0"},
        {R"("top_logprobs":21,"logprobs":true)", "top_logprobs", "got 21", "from -1 to 20"},
        {R"("top_logprobs":-2,"logprobs":true)", "top_logprobs", "got -2", "from -1 to 20"},
        {R"("logprobs":1)", "logprobs", "got 1", "true or false"},
        {R"("stream":"yes")", "stream", "got \"yes\"", "true or false"},
        {R"("stream_options":[],"stream":true)", "stream_options", "a list of 0", "an object"},
        {R"("stream_options":{"include_usage":1},"stream":true)",
         "stream_options.include_usage",
         "got 1",
         "true or false"},
        {R"("stop":5)", "stop", "got 5", "a list of at most 16 strings"},
        {R"("stop":"")", "stop", "got \"\"", "1 to 256 bytes"},
        {R"("stop":["a",""])", "stop[1]", "got \"\"", "not empty"},
        {R"("stop_token_ids":[1000])", "stop_token_ids[0]", "got 1000", "from 0 to 999"},
        {R"("stop_token_ids":[1,-1])", "stop_token_ids[1]", "got -1", "from 0 to 999"},
        {R"("bad_words_token_ids":[1,"2"])",
         "bad_words_token_ids[1]",
         "got \"2\"",
         "from 0 to 999"},
        {R"("bad_words":[""])", "bad_words[0]", "got \"\"", "not empty"},
        {R"("logit_bias":[])", "logit_bias", "a list of 0", "an object"},
        {R"("logit_bias":{"1000":1})", "logit_bias", "1000", "from 0 to 999"},
        {R"("logit_bias":{"-1":1})", "logit_bias", "-1", "from 0 to 999"},
        {R"("logit_bias":{"x":1})", "logit_bias", "x", "from 0 to 999"},
        {R"("logit_bias":{"1 ":1})", "logit_bias", "1 ", "from 0 to 999"},
        {R"("logit_bias":{"1":101})", "logit_bias.1", "got 101", "from -100 to 100"},
        {R"("request_id":"a b")", "request_id", "\"a b\"", "visible ASCII"},
        {R"("request_id":"")", "request_id", "\"\"", "visible ASCII"},
        {R"("max_streaming_response_tokens":0)",
         "max_streaming_response_tokens",
         "got 0",
         "from 1"},
        {R"("return_token_ids":"no")", "return_token_ids", "\"no\"", "true or false"},
        {R"("user":5)", "user", "got 5", "a string"},
        {R"("model":5)", "model", "got 5", "a string"},
        {R"("metadata":[])", "metadata", "a list of 0", "an object"},
        {R"("reasoning_effort":"huge")", "reasoning_effort", "\"huge\"", "none, minimal"},
        {R"("chat_template_kwargs":[])", "chat_template_kwargs", "a list of 0", "an object"},
        {R"("prompt_token_ids":[])", "prompt_token_ids", "a list of 0", "token ids"},
        {R"("prompt_token_ids":[[1],[2]])", "prompt_token_ids", "2 prompts", "one list"},
        {R"("completion_token_ids":[1],"n":2)", "completion_token_ids", "n = 2", "n = 1"}}) {
    CAPTURE(e.json);
    const ApiError error = bad_chat(chat(e.json));
    CHECK(error.param == e.param);
    CAPTURE(error.status.message());
    CHECK(contains(error, e.value));
    CHECK(contains(error, e.range));
  }
}

TEST_CASE("ParseChat.TakesTheEndsOfEveryRange") {
  for (const char* json : {R"("n":16)",
                           R"("temperature":0)",
                           R"("temperature":2e9)",
                           R"("top_p":0)",
                           R"("top_p":1)",
                           R"("top_k":-1)",
                           R"("min_p":1)",
                           R"("seed":0)",
                           R"("seed":922337203685477580)",
                           R"("n":2.0)",
                           R"("logprobs":true,"top_logprobs":20)",
                           R"("logprobs":false,"top_logprobs":0)",
                           R"("logit_bias":{})",
                           R"("logit_bias":{"999":100,"0":-100})",
                           R"("stop":[])"}) {
    good_chat(chat(json));
  }
  CHECK(good_chat(chat(R"("logprobs":true)")).common.logprobs == 0);
  CHECK(good_chat(chat(R"("logprobs":true,"top_logprobs":-1)")).common.logprobs == 20);
}

TEST_CASE("ParseChat.BoundsTheCountsOfLists") {
  const auto repeated = [](size_t n, const std::string& item) {
    std::string list;
    for (size_t i = 0; i < n; ++i) list += (i ? "," : "") + item;
    return list;
  };
  good_chat(chat("\"stop\":[" + repeated(16, "\"x\"") + "]"));
  CHECK(bad_chat(chat("\"stop\":[" + repeated(17, "\"x\"") + "]")).param == "stop");
  good_chat(chat("\"stop\":\"" + std::string(256, 'x') + "\""));
  CHECK(bad_chat(chat("\"stop\":\"" + std::string(257, 'x') + "\"")).param == "stop");
  CHECK(bad_chat(chat("\"stop\":[\"" + std::string(257, 'x') + "\"]")).param == "stop[0]");
  good_chat(chat("\"stop_token_ids\":[" + repeated(128, "1") + "]"));
  CHECK(bad_chat(chat("\"stop_token_ids\":[" + repeated(129, "1") + "]")).param ==
        "stop_token_ids");
  CHECK(bad_chat(chat("\"bad_words\":[" + repeated(1001, "\"x\"") + "]")).param == "bad_words");
  std::string biases;
  for (int i = 0; i < 1025; ++i) biases += (i ? ",\"" : "\"") + std::to_string(i % 1000) + "\":1";
  CHECK(bad_chat(chat("\"logit_bias\":{" + biases + "}")).param == "logit_bias");
}

TEST_CASE("ParseChat.SaysNotInThisVersionForWhatComesLater") {
  for (const auto& [json, param] :
       {std::pair{R"("tools":[{"type":"function"}])", "tools"},
        {R"("tool_choice":"auto")", "tool_choice"},
        {R"("tool_choice":{"type":"function"})", "tool_choice"},
        {R"("functions":[{}])", "functions"},
        {R"("response_format":{"type":"json_object"})", "response_format"},
        {R"("response_format":{"type":"json_schema","json_schema":{}})", "response_format"},
        {R"("prompt_logprobs":0)", "prompt_logprobs"},
        {R"("prompt_logprobs":1)", "prompt_logprobs"},
        {R"("guided_json":{})", "guided_json"},
        {R"("guided_regex":"a+")", "guided_regex"},
        {R"("structured_outputs":{"regex":"a"})", "structured_outputs"},
        {R"("logits_processors_args":{"a":1})", "logits_processors_args"},
        {R"("allowed_token_ids":[1])", "allowed_token_ids"},
        {R"("chat_template":"{{ x }}")", "chat_template"},
        {R"("reasoning_max_tokens":0)", "reasoning_max_tokens"},
        {R"("temp_scaled_logprobs":true)", "temp_scaled_logprobs"},
        {R"("cache_salt":"x")", "cache_salt"},
        {R"("modalities":["text","audio"])", "modalities"},
        {R"("metadata":{"raw_request":true})", "metadata.raw_request"},
        {R"("disaggregate_info":{"a":1})", "disaggregate_info"}}) {
    CAPTURE(json);
    const ApiError error = bad_chat(chat(json));
    CHECK(error.param == param);
    CHECK(error.code == "not_in_this_version");
    CHECK(contains(error, "not in this version"));
  }
  CHECK(bad_chat(chat(R"("response_format":{})")).param == "response_format");
  CHECK(bad_chat(chat(R"("response_format":"text")")).param == "response_format");
}

TEST_CASE("ParseChat.TakesSwitchedOffFormsOfThem") {
  good_chat(chat(R"("tools":[],"tool_choice":"none","functions":[],"function_call":"none",
                    "include_draft_logprobs":false,"temp_scaled_logprobs":false,"use_beam_search":false,
                    "modalities":["text"],"suffix":"","logits_processors_args":{})"));
}

TEST_CASE("ParseChat.AllowsStreamOptionsAndTopLogprobsOnlyWithWhatTheyNeed") {
  CHECK(bad_chat(chat(R"("stream_options":{"include_usage":true})")).param == "stream_options");
  CHECK(bad_chat(chat(R"("top_logprobs":2)")).param == "top_logprobs");
  good_chat(chat(R"("stream":true,"stream_options":{})"));
}

TEST_CASE("ParseChat.ReadsRolesAndContents") {
  const ChatRequest r = good_chat(R"({"messages":[
      {"role":"developer","content":"d"},
      {"role":"system","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"user","content":"","name":"bob"},
      {"role":"assistant","content":null,"tool_calls":[],"reasoning":"because"},
      {"role":"assistant"}]})");
  REQUIRE(r.messages.size() == 5);
  CHECK(r.messages[0].role == Role::kSystem);
  CHECK(r.messages[1].content == "a\nb");
  CHECK(r.messages[2].name == "bob");
  CHECK(r.messages[3].content.empty());
  CHECK(r.messages[3].reasoning_content == "because");
  CHECK(r.messages[4].role == Role::kAssistant);
}

TEST_CASE("ParseChat.RefusesBadMessagesByPath") {
  for (
      const auto& [json, param] :
      {std::pair{R"({"messages":[]})", "messages"},
       {R"({"messages":"hi"})", "messages"},
       {R"({})", "messages"},
       {R"({"messages":null})", "messages"},
       {R"({"messages":["hi"]})", "messages[0]"},
       {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
       {R"({"messages":[{"role":"king","content":"x"}]})", "messages[0].role"},
       {R"({"messages":[{"role":5,"content":"x"}]})", "messages[0].role"},
       {R"({"messages":[{"role":"tool","content":"x"}]})", "messages[0].role"},
       {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
       {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
       {R"({"messages":[{"role":"user","content":5}]})", "messages[0].content"},
       {R"({"messages":[{"role":"user","content":["x"]}]})", "messages[0].content[0]"},
       {R"({"messages":[{"role":"user","content":[{"text":"x"}]}]})",
        "messages[0].content[0].type"},
       {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
        "messages[0].content[0].text"},
       {R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}]})",
        "messages[0].content[1].type"},
       {R"({"messages":[{"role":"assistant","tool_calls":[{}]}]})", "messages[0].tool_calls"},
       {R"({"messages":[{"role":"user","content":"x","name":7}]})", "messages[0].name"},
       {R"({"messages":[{"role":"user","content":"x"},{"role":"user","content":{}}]})",
        "messages[1].content"}}) {
    CAPTURE(json);
    CHECK(bad_chat(json).param == param);
  }
  CHECK(contains(bad_chat(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})"),
                 "image_url"));
}

TEST_CASE("ParseChat.TakesTokenIdsInPlaceOfMessages") {
  CHECK(good_chat(R"({"messages":[1,2,3]})").common.prompt_token_ids ==
        std::vector<std::vector<TokenId>>{{1, 2, 3}});
  CHECK(good_chat(R"({"prompt_token_ids":[4,5]})").common.prompt_token_ids ==
        std::vector<std::vector<TokenId>>{{4, 5}});
  CHECK(bad_chat(R"({"messages":[1,"x"]})").param == "messages[1]");
}

TEST_CASE("ParseChat.TurnsOldWaysToSwitchThinkingIntoTemplateVariables") {
  CHECK(good_chat(chat(R"("metadata":{"enable_thinking":false})")).template_kwargs ==
        TemplateKwargs{{"enable_thinking", "false"}});
  CHECK(good_chat(chat(R"("metadata":{"enable_thinking":false},
                          "chat_template_kwargs":{"enable_thinking":true})"))
            .template_kwargs == TemplateKwargs{{"enable_thinking", "true"}});
  CHECK(good_chat(chat(R"("reasoning_effort":"none")")).template_kwargs ==
        TemplateKwargs{{"reasoning_effort", "\"none\""}, {"enable_thinking", "false"}});
}

TEST_CASE("ToJson.WritesMessagesAndVariablesForTheTemplate") {
  const ChatRequest r = good_chat(R"({"messages":[
      {"role":"developer","content":"d\"","name":"n"},{"role":"assistant","reasoning":"r"}],
      "chat_template_kwargs":{"a":[1, 2],"b":"x"}})");
  CHECK(to_json(r.messages) == R"([{"role":"system","content":"d\"","name":"n"},)"
                               R"({"role":"assistant","content":"","reasoning_content":"r"}])");
  CHECK(to_json(r.template_kwargs) == R"({"a":[1,2],"b":"x"})");
  CHECK(to_json(TemplateKwargs{}).empty());
}

TEST_CASE("ParseChat.RefusesBodiesThatAreNoJsonObject") {
  for (const auto& [body, part] : {std::pair<std::string, std::string>{"", "empty"},
                                   {"   ", "empty"},
                                   {"{", "not valid JSON"},
                                   {"[]", "expected a JSON object"},
                                   {"5", "expected a JSON object"},
                                   {"{} x", "not valid JSON"},
                                   {"{\"n\":1e999}", "a number is malformed or out of range"},
                                   {"{\"n\":NaN}", "not valid JSON"},
                                   {"{\"model\":\"\xff\"}", "not valid UTF-8"},
                                   {"{\"model\":\"\xed\xa0\x80\"}", "not valid UTF-8"},
                                   {"{\"model\":\"\xc0\x80\"}", "not valid UTF-8"},
                                   {R"({"model":"\ud800"})", "lone surrogate"},
                                   {R"({"model":"\udc00"})", "lone surrogate"},
                                   {R"({"model":"\ud800\u0041"})", "lone surrogate"},
                                   {R"({"model":"\x41"})", "wrong escape"},
                                   {"{\"model\":\"a\nb\"}", "control character"}}) {
    CAPTURE(body);
    const ApiError error = bad_chat(body);
    CHECK(error.code == "invalid_json");
    CAPTURE(error.status.message());
    CHECK(contains(error, part));
  }
  CHECK(
      good_chat(R"({"messages":[{"role":"user","content":"\ud83d\ude00"}]})").messages[0].content ==
      "\xF0\x9F\x98\x80");
}

TEST_CASE("ParseChat.RefusesNestingBeyond64Levels") {
  good_chat(chat("\"x\":" + nested(63)));
  CHECK(contains(bad_chat(chat("\"x\":" + nested(64))), "deeper than 64"));
  CHECK(contains(bad_chat(chat("\"x\":" + nested(100000))), "deeper than 64"));
}

TEST_CASE("ParseChat.ShowsAtMost64BytesOfALongValue") {
  const ApiError error = bad_chat(chat("\"n\":\"" + std::string(5000, 'x') + "\""));
  CHECK(error.status.message().size() < 200);
  CHECK(contains(error, "5000 bytes"));
}

TEST_CASE("ParseCompletion.ReadsAllFormsOfPrompts") {
  CHECK(std::get<std::string>(good_completion(R"({"prompt":"a"})").prompts.at(0)) == "a");
  const auto texts = good_completion(R"({"prompt":["a","b"]})").prompts;
  CHECK(texts.size() == 2);
  CHECK(std::get<std::string>(texts[1]) == "b");
  const auto ids = good_completion(R"({"prompt":[1,2]})").prompts;
  REQUIRE(ids.size() == 1);
  CHECK(std::get<std::vector<TokenId>>(ids[0]) == std::vector<TokenId>{1, 2});
  const auto mixed = good_completion(R"({"prompt":["a",[1,2],[3]]})").prompts;
  REQUIRE(mixed.size() == 3);
  CHECK(std::get<std::vector<TokenId>>(mixed[2]) == std::vector<TokenId>{3});
  CHECK(good_completion(R"({"prompt":"a","prompt_token_ids":[[1],[2,3]]})").prompts.size() == 2);
}

TEST_CASE("ParseCompletion.RefusesBadPrompts") {
  for (const auto& [json, param] : {std::pair{R"({})", "prompt"},
                                    {R"({"prompt":null})", "prompt"},
                                    {R"({"prompt":5})", "prompt"},
                                    {R"({"prompt":[]})", "prompt"},
                                    {R"({"prompt":[1,"a"]})", "prompt[1]"},
                                    {R"({"prompt":["a",1]})", "prompt[1]"},
                                    {R"({"prompt":[1000]})", "prompt[0]"},
                                    {R"({"prompt":[[1],[1000]]})", "prompt[1][0]"},
                                    {R"({"prompt":[{}]})", "prompt[0]"}}) {
    CAPTURE(json);
    CHECK(bad_completion(json).param == param);
  }
}

TEST_CASE("ParseCompletion.ReadsItsOwnFields") {
  const CompletionRequest r = good_completion(completion(
      R"("echo":true,"logprobs":3,"max_tokens":0,"best_of":2,"n":2,"add_special_tokens":false)"));
  CHECK(r.echo);
  CHECK(r.common.logprobs == 3);
  CHECK(r.common.sampling.max_tokens == 0);
  CHECK_FALSE(r.add_special_tokens);
  CHECK(good_completion(completion(R"("logprobs":-1)")).common.logprobs == 20);
  CHECK(good_completion(completion(R"("prompt_logprobs":2)")).prompt_logprobs == 2);
}

TEST_CASE("ParseCompletion.RefusesWhatDoesNotFitTogether") {
  CHECK(bad_completion(completion(R"("max_tokens":0)")).param == "max_tokens");
  CHECK(bad_completion(completion(R"("best_of":2)")).param == "best_of");
  CHECK(bad_completion(completion(R"("suffix":"end")")).param == "suffix");
  CHECK(bad_completion(completion(R"("logprobs":true)")).param == "logprobs");
  CHECK(bad_completion(completion(R"("prompt_logprobs":1,"stream":true)")).param ==
        "prompt_logprobs");
  CHECK(bad_completion(R"({"prompt":["a","b"],"completion_token_ids":[1]})").param ==
        "completion_token_ids");
}

TEST_CASE("ParseTokenize.TakesAPromptOrMessages") {
  CHECK(parse_tokenize_request(R"({"prompt":"a","add_special_tokens":false})", kLimits)
            .value()
            .prompt == "a");
  CHECK(parse_tokenize_request(R"({"messages":[{"role":"user","content":"a"}]})", kLimits).ok());
  CHECK(parse_tokenize_request(R"({"prompt":""})", kLimits).ok());
  CHECK_FALSE(parse_tokenize_request(R"({})", kLimits).ok());
  CHECK_FALSE(parse_tokenize_request(R"({"prompt":"a","messages":[{"role":"user","content":"a"}]})",
                                     kLimits)
                  .ok());
  CHECK_FALSE(parse_tokenize_request(R"({"prompt":["a"]})", kLimits).ok());
  CHECK_FALSE(parse_tokenize_request("x", kLimits).ok());
}

TEST_CASE("ParseDetokenize.TakesIdsOfTheVocabulary") {
  CHECK(parse_detokenize_request(R"({"tokens":[1,2]})", kLimits).value().tokens ==
        std::vector<TokenId>{1, 2});
  CHECK(parse_detokenize_request(R"({"tokens":[]})", kLimits).ok());
  CHECK_FALSE(parse_detokenize_request(R"({})", kLimits).ok());
  CHECK_FALSE(parse_detokenize_request(R"({"tokens":[1000]})", kLimits).ok());
  CHECK_FALSE(parse_detokenize_request(R"({"tokens":"x"})", kLimits).ok());
  CHECK_FALSE(parse_detokenize_request("", kLimits).ok());
}

TEST_CASE("IsValidRequestId.RefusesWhatCouldForgeAHeaderOrALogLine") {
  CHECK(is_valid_request_id("a-B_9:x/y"));
  CHECK_FALSE(is_valid_request_id(""));
  CHECK_FALSE(is_valid_request_id("a b"));
  CHECK_FALSE(is_valid_request_id("a\r\nb"));
  CHECK_FALSE(is_valid_request_id("\xC3\xA9"));
  CHECK_FALSE(is_valid_request_id(std::string(129, 'x')));
}

}  // namespace
}  // namespace flotilla::openai
