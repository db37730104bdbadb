// What clients may ask for, as plain structs, and the reading of it from JSON. Every field is typed
// and bounded here: what comes out of parse_… can be trusted except for what needs a tokenizer
// (lengths of prompts and of bad words). Unknown fields are ignored, null means absent, of a
// repeated name the last one counts. docs/openai-api.md lists every field; schema_fields.cc holds
// the tables that make it true.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "api_server/openai/error.h"
#include "engine/request.h"

namespace flotilla::openai {

// Bounds that depend on the model or on flags; the fixed ones are in schema_limits below.
struct SchemaLimits {
  int64_t vocab_size = 0;     // token ids are 0 … vocab_size − 1
  int64_t max_n = 16;         // --max-n
  int64_t max_logprobs = 20;  // --max-logprobs, ≤ 20
};

inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxStops = 16;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr size_t kMaxStopTokenIds = 128;
inline constexpr size_t kMaxLogitBias = 1024;
inline constexpr size_t kMaxBadWords = 1000;
inline constexpr size_t kMaxBadWordBytes = 256;
inline constexpr size_t kMaxMessages = 16384;
inline constexpr size_t kMaxPrompts = 1024;
inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr size_t kMaxTemplateKwargs = 32;
inline constexpr int64_t kMaxSeed = 922337203685477580;  // FastDeploy's

// Absent fields take the model's or the engine's default (openai/sampling.h).
struct SamplingFields {
  std::optional<double> temperature;         // ≥ 0
  std::optional<double> top_p;               // 0 … 1
  std::optional<double> min_p;               // 0 … 1
  std::optional<double> presence_penalty;    // −2 … 2
  std::optional<double> frequency_penalty;   // −2 … 2
  std::optional<double> repetition_penalty;  // > 0
  std::optional<int64_t> top_k;              // ≥ −1; −1 and 0: off
  std::optional<int64_t> seed;               // 0 … kMaxSeed
  std::optional<int64_t> max_tokens;         // ≥ 1; 0 only with echo
  std::optional<int64_t> min_tokens;         // ≥ 0
  std::vector<TokenBias> logit_bias;
  std::vector<std::string> bad_words;
  std::vector<TokenId> bad_words_token_ids;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
};

// What chat and completions have in common.
struct GenerationFields {
  std::string model;  // "default" if absent
  int64_t n = 1;
  SamplingFields sampling;
  bool stream = false;
  bool include_usage = false;           // stream_options
  bool continuous_usage_stats = false;  // stream_options
  std::optional<int64_t> logprobs;      // 0 … max_logprobs best ones, besides the sampled one
  std::string request_id;               // "" if absent
  bool return_token_ids = false;
  bool tokens_as_ids = false;                          // log probabilities name tokens "token_id:N"
  int64_t tokens_per_chunk = 1;                        // max_streaming_response_tokens
  std::vector<std::vector<TokenId>> prompt_token_ids;  // instead of a text
  std::vector<TokenId>
      completion_token_ids;  // produced by an earlier request that this one resumes
};

enum class Role { kSystem, kUser, kAssistant };  // developer counts as system
std::string_view to_string(Role role);

struct ChatMessage {
  Role role = Role::kUser;
  std::string content;  // text parts are joined by newlines
  std::optional<std::string> name = {};
  std::optional<std::string> reasoning_content = {};  // also read from `reasoning`
};

// Variables for the chat template: name and JSON value. The template takes those that it reads and
// refuses the names of its own inputs (engine/text/chat_template.h).
using TemplateKwargs = std::vector<std::pair<std::string, std::string>>;

struct ChatRequest {
  GenerationFields common;
  std::vector<ChatMessage> messages;  // empty only if prompt_token_ids stand instead
  TemplateKwargs template_kwargs;
  bool add_generation_prompt = true;
  bool disable_chat_template = false;  // the first message's content is the prompt
};

using PromptInput = std::variant<std::string, std::vector<TokenId>>;

struct CompletionRequest {
  GenerationFields common;
  std::vector<PromptInput> prompts;  // at least one
  bool echo = false;
  bool add_special_tokens = true;          // as the tokenizer's post-processor has it
  std::optional<int64_t> prompt_logprobs;  // vLLM's: per prompt token, not in a stream
};

struct TokenizeRequest {
  std::string model;
  std::optional<std::string> prompt;  // or messages
  std::vector<ChatMessage> messages;
  TemplateKwargs template_kwargs;
  std::optional<bool> add_special_tokens;  // default: true for a prompt, false for messages
  bool add_generation_prompt = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
};

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const SchemaLimits& limits);
ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const SchemaLimits& limits);
ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const SchemaLimits& limits);
ApiResult<DetokenizeRequest> parse_detokenize_request(std::string_view body,
                                                      const SchemaLimits& limits);

// As a chat template takes them: an array of {"role","content",…}; an object, or "" if there are
// none.
std::string to_json(const std::vector<ChatMessage>& messages);
std::string to_json(const TemplateKwargs& kwargs);

// 1 … kMaxRequestIdBytes visible ASCII characters except '"', '\\' and '<'.
bool is_valid_request_id(std::string_view id);

}  // namespace flotilla::openai
