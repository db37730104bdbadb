// What is asked of an engine: one sequence to generate, as plain serialisable data. The same value
// is submitted in-process, over the queue port, and again on another rank after a loss.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"

namespace flotilla {

using TokenId = int32_t;

struct TokenBias {
  TokenId token;
  float bias;
};

// Every field is resolved: defaults of request, generation_config.json and engine are merged at the
// front.
struct SamplingParams {
  float temperature = 1.0f;         // ≥ 0; 0 is greedy
  float top_p = 1.0f;               // 0 … 1
  int32_t top_k = 0;                // ≤ 0: off
  float min_p = 0.0f;               // 0 … 1
  float presence_penalty = 0.0f;    // −2 … 2
  float frequency_penalty = 0.0f;   // −2 … 2
  float repetition_penalty = 1.0f;  // > 0
  std::vector<TokenBias> logit_bias = {};
  std::vector<std::vector<TokenId>> bad_words =
      {};                    // the last id is banned while the ones before it match
  uint32_t min_tokens = 0;   // no end-of-sequence and no stop token before that many
  uint32_t max_tokens = 16;  // ≥ 1, counted with `produced`
  std::vector<TokenId> stop_token_ids = {};  // besides the model's end-of-sequence ids
  bool ignore_eos = false;
  int32_t logprobs = -1;  // −1: none; n ≥ 0: of the sampled token and of the n best
  int32_t prompt_logprobs =
      -1;  // likewise for every prompt token; such a prompt does not use the prefix cache
};

struct GenerationRequest {
  uint64_t id = 0;                // chosen by the submitter, unique among its live requests
  uint64_t generation = 0;        // grows each time the same request is placed again
  std::string request_id;         // for logs
  std::vector<TokenId> prompt;    // at least one token
  std::vector<TokenId> produced;  // by an earlier placement; generation goes on behind them
  SamplingParams sampling;
  uint64_t seed = 0;    // resolved at the front: never absent
  uint32_t choice = 0;  // index among the n choices of one request; part of the sampling key
  std::chrono::steady_clock::time_point arrival{};
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

struct TokenLogprob {
  TokenId token = -1;
  float logprob = 0.0f;
  int32_t rank = 0;  // 1 = most likely; 0 = not known
};

struct PositionLogprobs {
  TokenLogprob chosen;            // token −1: none (the first prompt token)
  std::vector<TokenLogprob> top;  // best first
};

enum class FinishReason { kRunning, kStop, kLength, kCancelled, kError };

// New tokens of one sequence, in order. The batch with `finish` set is the last one.
struct TokenBatch {
  uint64_t id = 0;
  uint64_t generation = 0;
  uint32_t first_index = 0;  // of the first token here, from the request's first produced token
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs;         // one per token, if asked for
  std::vector<PositionLogprobs> prompt_logprobs;  // once, if asked for
  uint32_t cached_tokens = 0;                     // prompt tokens found in the prefix cache
  FinishReason finish = FinishReason::kRunning;
  TokenId stop_token = -1;  // kStop: the token that stopped it; it is not in `tokens`
  Status error;             // kError
  // From the engine's monotonic clock; set with the first token and at the end.
  std::chrono::steady_clock::time_point scheduled_at{};  // first step that worked on it was planned
  std::chrono::steady_clock::time_point produced_at{};   // of the newest token here
};

}  // namespace flotilla
