// From logits to tokens, on the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// How one row is sampled. Plain data: an array of these lies where the device reads it.
struct SamplerRow {
  float temperature = 1.0f;        // 0: greedy (the lowest id among equals)
  float top_p = 1.0f;              // 1: off
  float min_p = 0.0f;              // 0: off
  int32_t top_k = 0;               // <= 0: off
  float presence_penalty = 0.0f;   // subtracted once from every token already produced
  float frequency_penalty = 0.0f;  // subtracted times its count among the produced
  float repetition_penalty =
      1.0f;            // divides positive, multiplies negative logits of prompt and produced tokens
  int32_t choice = 0;  // part of the random key
  uint64_t seed = 0;   // part of the random key
  int64_t position = 0;  // absolute position of the token being sampled; part of the random key
  int32_t num_logprobs = -1;  // -1: none; n >= 0: the sampled token's, and the n best
  // Ranges in the arrays of SampleParams: [begin, end).
  int32_t seen_begin = 0, seen_end = 0;  // distinct tokens of prompt and output, for the penalties
  int32_t bias_begin = 0, bias_end = 0;  // logit_bias
  int32_t banned_begin = 0,
          banned_end = 0;  // tokens that must not come now (min_tokens, bad words)
  int32_t mask_row = -1;   // row of `allowed`, -1: everything is allowed
};

struct SeenToken {
  int32_t token;
  int32_t produced;  // how often among the produced tokens; 0: only in the prompt
};
struct BiasedToken {
  int32_t token;
  float bias;
};

// For every row: add logit_bias; ban; apply the penalties; divide by the temperature; keep min_p,
// then top_k, then top_p (each by the probabilities that are left, best first, ties by lower id; at
// least one token stays); draw by inverse transform over the kept tokens in ascending id with u =
// sampling_uniform(seed, choice, position). NaN logits count as -inf; if nothing is left, the
// highest raw logit among the tokens not banned wins, and token 0 if all are banned. Log
// probabilities are of the raw logits: log_softmax before bias, penalties and temperature.
//   logits [S, V] F32, overwritten; rows [S] SamplerRow; tokens [S] I32
//   logprobs: [S] F32 of the sampled token, ranks [S] I32 (1 = most likely), top_ids [S, L] I32,
//   top_logprobs [S, L] F32 (best first, ties by lower id, filled up to the row's num_logprobs):
//   written for rows with num_logprobs >= 0 only; may be empty if there is none allowed [M,
//   ceil(V/32)] I32 bit masks, optional
// workspace: sample_workspace_bytes(S, V), aligned to 64. The result of a row depends on that row
// only.
struct SampleParams {
  TensorView logits;
  const SamplerRow* rows = nullptr;
  const SeenToken* seen = nullptr;
  const BiasedToken* bias = nullptr;
  const int32_t* banned = nullptr;
  TensorView allowed = {};
  TensorView tokens;
  TensorView logprobs = {}, ranks = {}, top_ids = {}, top_logprobs = {};
  void* workspace = nullptr;
};
void sample(const SampleParams& p, Stream& stream);
size_t sample_workspace_bytes(int64_t rows, int64_t vocab, const Stream& stream);

// Raw log probabilities of given tokens (prompt_logprobs): as the outputs of sample(), with targets
// [S] I32 in place of the sampled.
struct TokenLogprobsParams {
  TensorView logits;   // [S, V] F32, not changed
  TensorView targets;  // [S] I32
  int32_t num_top = 0;
  // [S], [S], [S, L], [S, L] with L >= num_top; the last two may be empty if num_top is 0
  TensorView logprobs, ranks;
  TensorView top_ids = {}, top_logprobs = {};
};
void token_logprobs(const TokenLogprobsParams& p, Stream& stream);

// The uniform number in [0, 1) with 24 bits that a sequence uses for the token at an absolute
// position: the same on every device. Philox 4x32-10 (Salmon et al., SC'11) with key = seed and
// counter = (position, choice).
float sampling_uniform(uint64_t seed, int32_t choice, int64_t position);

}  // namespace flotilla
