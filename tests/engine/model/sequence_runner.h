// Runs a sequence through a model as a runner would, and compares rows of logits.
#pragma once

#include <atomic>
#include <cmath>

#include "tests/engine/model/fixture.h"

namespace flotilla {

// Runs a sequence on one model, token by token or in chunks, in blocks 1, 2, … of its cache.
class SequenceRunner {
 public:
  explicit SequenceRunner(TestModel& t) : t_(t), stream_(t.device->create_stream()) {
    auto memory = t.device->allocate(64u << 20);
    REQUIRE(memory.ok());
    workspace_ = std::make_unique<Workspace>(std::move(*memory));
    for (int64_t b = 1; b < t.cache.layout().num_blocks; ++b)
      table_.push_back(static_cast<int32_t>(b));
  }

  // The logits of each of `tokens`.
  std::vector<std::vector<float>> run(std::vector<TokenId> tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    std::vector<int32_t> positions, slots, offsets = {0, static_cast<int32_t>(n)};
    const int64_t bs = t_.cache.layout().block_size;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t p = length_ + i;
      positions.push_back(static_cast<int32_t>(p));
      slots.push_back(static_cast<int32_t>(table_[static_cast<size_t>(p / bs)] * bs + p % bs));
    }
    length_ += n;
    std::vector<int32_t> context = {static_cast<int32_t>(length_)};
    const StepInputs in{
        .tokens = {tokens.data(), DType::kI32, {n}},
        .positions = {positions.data(), DType::kI32, {n}},
        .slots = {slots.data(), DType::kI32, {n}},
        .q_offsets = {offsets.data(), DType::kI32, {2}},
        .context = {context.data(), DType::kI32, {1}},
        .block_table = {table_.data(), DType::kI32, {1, static_cast<int64_t>(table_.size())}},
        .max_context = length_};
    Workspace::Scope scope(*workspace_);
    ForwardContext ctx{.stream = *stream_,
                       .workspace = *workspace_,
                       .in = in,
                       .kv_cache = t_.cache.data(),
                       .layout = t_.cache.layout(),
                       .exchange = *t_.exchange,
                       .activation = t_.cache.layout().dtype,
                       .progress = progress_};
    const auto hidden = t_.model->lm().forward(ctx);
    REQUIRE(hidden.ok());
    const int64_t vocab = t_.model->config().vocab_size;
    const TensorView logits = workspace_->take(DType::kF32, {n, vocab});
    t_.model->lm().logits(*hidden, logits, *stream_);
    stream_->synchronize();
    std::vector<std::vector<float>> out;
    for (int64_t i = 0; i < n; ++i)
      out.emplace_back(logits.row<float>(i), logits.row<float>(i) + vocab);
    return out;
  }

 private:
  TestModel& t_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Workspace> workspace_;
  std::vector<int32_t> table_;
  int64_t length_ = 0;
  std::atomic<uint64_t> progress_ = 0;
};

inline std::vector<double> log_softmax(const std::vector<float>& logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(v - top);
  std::vector<double> out;
  for (const float v : logits) out.push_back(v - top - std::log(sum));
  return out;
}

// Of the log probabilities of one row, as parts of the row's logit range.
struct RowError {
  double max;
  double mean;
  double kl;
};
inline RowError row_error(const std::vector<float>& got, const std::vector<float>& wanted) {
  const auto [low, high] = std::minmax_element(wanted.begin(), wanted.end());
  const std::vector<double> p = log_softmax(wanted), q = log_softmax(got);
  RowError e{0, 0, 0};
  for (size_t i = 0; i < p.size(); ++i) {
    const double error = std::abs(p[i] - q[i]) / (*high - *low);
    e.max = std::max(e.max, error);
    e.mean += error / static_cast<double>(p.size());
    e.kl += std::exp(p[i]) * (p[i] - q[i]);
  }
  return e;
}

inline TokenId argmax(const std::vector<float>& v) {
  return static_cast<TokenId>(std::max_element(v.begin(), v.end()) - v.begin());
}

inline std::vector<CpuIsa> available_isas() {
  std::vector<CpuIsa> all;
  for (const CpuIsa isa :
       {CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (cpu_has(isa)) all.push_back(isa);
  }
  return all;
}

}  // namespace flotilla
