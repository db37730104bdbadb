// Answers as JSON and as server-sent events, for chat and completions. Values in, text out: nothing
// here knows of engines, tokenizers or sockets. What is the same in every chunk of a stream is
// written once (budget: 5 µs a streamed token).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api_server/openai/error.h"
#include "engine/request.h"

namespace flotilla::openai {

enum class Dialect { kChat, kCompletion };

struct Usage {
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t cached_tokens = 0;                     // of the prompt, found in the prefix cache
  std::optional<uint64_t> reasoning_tokens = {};  // with a reasoning parser
};

// A token as log probabilities show it.
struct NamedLogprob {
  std::string token;                      // its text, or "token_id:N"
  std::optional<std::string> bytes = {};  // nullopt: it has none
  float logprob = 0.0f;                   // −∞ is shown as −9999
};

struct LogprobEntry {
  NamedLogprob chosen;
  bool has_logprob = true;             // false for the first token of a prompt
  std::vector<NamedLogprob> top = {};  // best first
  uint64_t text_offset = 0;            // characters before it in the answer's text (completions)
};

// vLLM's prompt_logprobs: per prompt token, by token id.
struct PromptLogprob {
  TokenId token = -1;
  float logprob = 0.0f;
  int32_t rank = 0;
  std::string decoded;
};
using PromptLogprobs = std::vector<std::vector<PromptLogprob>>;  // the first one is empty

using StopReason =
    std::variant<std::monostate, std::string, TokenId>;  // none, a stop string, a stop token

// What the whole answer has in common.
struct AnswerHead {
  Dialect dialect = Dialect::kChat;
  std::string id;       // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;  // seconds since 1970
  std::string model;    // as the client called it
};

// One choice, whole.
struct Choice {
  uint32_t index = 0;
  std::string text;
  std::optional<std::string> reasoning = {};  // present with a reasoning parser
  bool has_text = true;                       // false: content is null (all was reasoning)
  std::optional<std::vector<LogprobEntry>> logprobs = {};  // if asked for
  std::optional<PromptLogprobs> prompt_logprobs = {};      // if asked for (completions)
  bool show_token_ids = false;
  std::vector<TokenId> prompt_token_ids = {};
  std::vector<TokenId> token_ids = {};
  FinishReason finish = FinishReason::kStop;
  StopReason stop_reason = {};
};

// What is new of one choice in a stream.
struct Delta {
  uint32_t index = 0;
  std::string_view text = {};
  std::string_view reasoning = {};
  std::span<const LogprobEntry> logprobs = {};  // none: shown as null
  std::span<const TokenId> token_ids = {};
  bool show_token_ids = false;
  const std::vector<TokenId>* prompt_token_ids =
      nullptr;                              // in a completion choice's first chunk, if asked for
  std::optional<FinishReason> finish = {};  // in the choice's last chunk
  const StopReason* stop_reason = nullptr;
  const Usage* usage = nullptr;  // continuous_usage_stats
};

std::string whole_answer(const AnswerHead& head,
                         std::span<const Choice> choices,
                         const Usage& usage);

// The events of one stream. Threads: one at a time.
class ChunkWriter {
 public:
  // `include_usage`: the last chunk before [DONE] has the usage, all others "usage": null.
  ChunkWriter(const AnswerHead& head, bool include_usage);

  // A chat choice's first chunk. `prompt_token_ids`: null unless asked for.
  void append_opening(std::string* out,
                      uint32_t index,
                      const std::vector<TokenId>* prompt_token_ids,
                      const Usage* usage) const;
  void append_delta(std::string* out, const Delta& delta) const;
  void append_usage(std::string* out, const Usage& usage) const;
  static void append_error(std::string* out, const ApiError& error);
  static void append_done(std::string* out);

 private:
  void append_tail(std::string* out, const Usage* usage) const;

  Dialect dialect_;
  bool include_usage_;
  std::string prefix_;  // `data: {"id":…,"choices":[`
};

std::string_view finish_reason_name(FinishReason reason);  // "stop" or "length"
// An id for a request that has none: 32 hex digits.
std::string random_request_id();

}  // namespace flotilla::openai
