#include "kernels/sampler.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"
#include "kernels/philox.h"

namespace flotilla {
namespace {

void expect_logprobs(const TensorView& logprobs,
                     const TensorView& ranks,
                     const TensorView& top_ids,
                     const TensorView& top_logprobs,
                     int64_t s) {
  expect(logprobs, "logprobs").shape({s}).dtype({DType::kF32}).contiguous();
  expect(ranks, "ranks").shape({s}).dtype({DType::kI32}).contiguous();
  if (top_ids.empty() && top_logprobs.empty()) return;
  expect(top_ids, "top_ids").shape({s, top_ids.cols()}).dtype({DType::kI32});
  expect(top_logprobs, "top_logprobs").shape({s, top_ids.cols()}).dtype({DType::kF32});
}

}  // namespace

void sample(const SampleParams& p, Stream& stream) {
  const int64_t s = p.logits.rows(), v = p.logits.cols();
  expect(p.logits, "logits").shape({s, v}).dtype({DType::kF32});
  expect(p.tokens, "tokens").shape({s}).dtype({DType::kI32}).contiguous();
  if (!p.allowed.empty()) {
    expect(p.allowed, "allowed").shape({p.allowed.rows(), (v + 31) / 32}).dtype({DType::kI32});
  }
  if (!p.logprobs.empty()) {
    expect_logprobs(p.logprobs, p.ranks, p.top_ids, p.top_logprobs, s);
  }
  if (s == 0) return;
  check(v > 0 && v <= int64_t{1} << 30, "sample: the vocabulary is empty or larger than 2^30");
  stream.kernels().sample(p, stream);
}

size_t sample_workspace_bytes(int64_t rows, int64_t vocab, const Stream& stream) {
  return stream.kernels().sample_workspace_bytes(rows, vocab, stream);
}

void token_logprobs(const TokenLogprobsParams& p, Stream& stream) {
  const int64_t s = p.logits.rows(), v = p.logits.cols();
  expect(p.logits, "logits").shape({s, v}).dtype({DType::kF32});
  expect(p.targets, "targets").shape({s}).dtype({DType::kI32}).contiguous();
  expect_logprobs(p.logprobs, p.ranks, p.top_ids, p.top_logprobs, s);
  check(p.num_top == 0 || (!p.top_ids.empty() && p.num_top <= p.top_ids.cols()),
        "token_logprobs: num_top is larger than the outputs");
  if (s == 0) return;
  stream.kernels().token_logprobs(p, stream);
}

float sampling_uniform(uint64_t seed, int32_t choice, int64_t position) {
  const auto p = static_cast<uint64_t>(position);
  const auto words = philox_4x32_10(
      {static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32), static_cast<uint32_t>(choice), 0},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<float>(words[0] >> 8) * 0x1p-24f;
}

}  // namespace flotilla
