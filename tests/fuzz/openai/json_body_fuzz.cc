// Any bytes as the body of each endpoint: what is accepted keeps its bounds, what is refused has an
// answer that is JSON.
#include <simdjson.h>

#include <cstdint>
#include <string_view>

#include "api_server/openai/schema.h"
#include "common/check.h"
#include "common/utf8.h"

namespace flotilla::openai {
namespace {

constexpr SchemaLimits kLimits = {.vocab_size = 1000};

void check_ids(const std::vector<TokenId>& ids) {
  for (const TokenId id : ids) check(id >= 0 && id < kLimits.vocab_size, "a token id out of range");
}

void check_common(const GenerationFields& fields) {
  const SamplingFields& s = fields.sampling;
  check(fields.n >= 1 && fields.n <= kLimits.max_n, "n");
  check(!fields.logprobs || (*fields.logprobs >= 0 && *fields.logprobs <= 20), "logprobs");
  check(!s.temperature || *s.temperature >= 0, "temperature");
  check(!s.top_p || (*s.top_p >= 0 && *s.top_p <= 1), "top_p");
  check(!s.repetition_penalty || *s.repetition_penalty > 0, "repetition_penalty");
  check(!s.seed || (*s.seed >= 0 && *s.seed <= kMaxSeed), "seed");
  check(s.stop.size() <= kMaxStops && s.logit_bias.size() <= kMaxLogitBias, "list sizes");
  for (const std::string& stop : s.stop)
    check(!stop.empty() && stop.size() <= kMaxStopBytes, "stop");
  check_ids(s.stop_token_ids);
  check_ids(s.bad_words_token_ids);
  check_ids(fields.completion_token_ids);
  for (const auto& ids : fields.prompt_token_ids) check_ids(ids);
}

void check_messages(const std::vector<ChatMessage>& messages) {
  for (const ChatMessage& message : messages) check(is_valid_utf8(message.content), "content");
  simdjson::dom::parser parser;
  check(parser.parse(to_json(messages)).error() == simdjson::SUCCESS, "messages as JSON");
}

template <typename Request>
void check_refusal(const ApiResult<Request>& result) {
  const ErrorResponse response = to_response(result.error());
  check(response.http_status == 400, "a bad body is the caller's mistake");
  simdjson::dom::parser parser;
  check(parser.parse(response.body).error() == simdjson::SUCCESS, "an error as JSON");
  check(response.body.size() < 4096, "an error answer is short");
}

void run(uint8_t endpoint, std::string_view body) {
  switch (endpoint % 4) {
    case 0: {
      auto chat = parse_chat_request(body, kLimits);
      if (!chat.ok()) return check_refusal(chat);
      check_common(chat.value().common);
      check_messages(chat.value().messages);
      const std::string kwargs = to_json(chat.value().template_kwargs);
      simdjson::dom::parser parser;
      check(kwargs.empty() || parser.parse(kwargs).error() == simdjson::SUCCESS,
            "variables as JSON");
      return;
    }
    case 1: {
      auto completion = parse_completion_request(body, kLimits);
      if (!completion.ok()) return check_refusal(completion);
      check_common(completion.value().common);
      check(!completion.value().prompts.empty(), "a prompt");
      return;
    }
    case 2: {
      auto tokenize = parse_tokenize_request(body, kLimits);
      if (!tokenize.ok()) return check_refusal(tokenize);
      return check_messages(tokenize.value().messages);
    }
    default: {
      auto detokenize = parse_detokenize_request(body, kLimits);
      if (!detokenize.ok()) return check_refusal(detokenize);
      return check_ids(detokenize.value().tokens);
    }
  }
}

}  // namespace
}  // namespace flotilla::openai

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  flotilla::openai::run(data[0], {reinterpret_cast<const char*>(data) + 1, size - 1});
  return 0;
}
