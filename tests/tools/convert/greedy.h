// Greedy text of a model in one process, and routing faults to inject on the way.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/model/fixture.h"

namespace flotilla {

// The exchange of a rank that holds every expert, where the ids that arrive and the weights that
// experts' rows get may be tampered with; and a look at both.
class FaultyExchange final : public ExpertExchange {
 public:
  struct Faults {
    std::function<void(std::vector<int32_t>* ids)> ids = {};        // [T, k], of one layer
    std::function<void(std::vector<float>* weights)> weights = {};  // [T, k]
    std::function<void(const TensorView& ids)> look = {};           // at the true ones
  };
  FaultyExchange(int32_t num_experts, int64_t hidden, Faults faults)
      : local_(num_experts, hidden), faults_(std::move(faults)) {}

  Status begin_step(const StepGrant& grant) override { return local_.begin_step(grant); }
  Status dispatch(int64_t layer,
                  const TensorView& x,
                  const TensorView& ids,
                  Stream& stream) override {
    if (faults_.look) faults_.look(ids);
    ids_.assign(ids.as<int32_t>(), ids.as<int32_t>() + ids.elements());
    if (faults_.ids) faults_.ids(&ids_);
    for (int64_t t = 0; t < ids.rows(); ++t) {
      std::sort(ids_.begin() + t * ids.cols(), ids_.begin() + (t + 1) * ids.cols());
    }
    return local_.dispatch(
        layer, x, TensorView(ids_.data(), DType::kI32, {ids.rows(), ids.cols()}), stream);
  }
  StatusOr<bool> next_work(ExpertWork* work, Stream& stream) override {
    return local_.next_work(work, stream);
  }
  Status combine(const TensorView& weights,
                 const TensorView& base,
                 const TensorView& y,
                 Stream& stream) override {
    weights_.assign(weights.as<float>(), weights.as<float>() + weights.elements());
    if (faults_.weights) faults_.weights(&weights_);
    return local_.combine(
        TensorView(weights_.data(), DType::kF32, {weights.rows(), weights.cols()}),
        base,
        y,
        stream);
  }
  void cancel_before(Epoch) override {}
  bool waiting() const override { return false; }
  std::chrono::nanoseconds waited() const override { return {}; }

 private:
  LocalExchange local_;
  Faults faults_;
  std::vector<int32_t> ids_;
  std::vector<float> weights_;
};

// Runs sequences one after the other on a model that bring_up() made.
class GreedyRunner {
 public:
  explicit GreedyRunner(TestModel& t) : t_(t), stream_(t.device->create_stream()) {
    auto memory = t.device->allocate(size_t{256} << 20);
    REQUIRE(memory.ok());
    workspace_ = std::make_unique<Workspace>(std::move(*memory));
    for (int64_t b = 1; b < t.cache.layout().num_blocks; ++b) {
      table_.push_back(static_cast<int32_t>(b));
    }
  }

  // The `count` tokens of largest logit behind `prompt`.
  std::vector<TokenId> generate(const std::vector<TokenId>& prompt,
                                size_t count,
                                const FaultyExchange::Faults& faults = {}) {
    const ModelConfig& c = t_.model->config();
    FaultyExchange exchange(static_cast<int32_t>(c.moe.num_experts), c.hidden_size, faults);
    std::vector<TokenId> out, next = prompt;
    int64_t length = 0;
    while (out.size() < count) {
      out.push_back(step(next, length, exchange));
      length += static_cast<int64_t>(next.size());
      next = {out.back()};
    }
    return out;
  }

 private:
  TokenId step(std::vector<TokenId> tokens, int64_t begin, ExpertExchange& exchange) {
    const auto n = static_cast<int64_t>(tokens.size());
    const int64_t block = t_.cache.layout().block_size;
    std::vector<int32_t> positions, slots, offsets = {0, static_cast<int32_t>(n)};
    for (int64_t p = begin; p < begin + n; ++p) {
      positions.push_back(static_cast<int32_t>(p));
      slots.push_back(
          static_cast<int32_t>(table_[static_cast<size_t>(p / block)] * block + p % block));
    }
    std::vector<int32_t> context = {static_cast<int32_t>(begin + n)};
    const StepInputs in{
        .tokens = {tokens.data(), DType::kI32, {n}},
        .positions = {positions.data(), DType::kI32, {n}},
        .slots = {slots.data(), DType::kI32, {n}},
        .q_offsets = {offsets.data(), DType::kI32, {2}},
        .context = {context.data(), DType::kI32, {1}},
        .block_table = {table_.data(), DType::kI32, {1, static_cast<int64_t>(table_.size())}},
        .max_context = begin + n};
    Workspace::Scope scope(*workspace_);
    ForwardContext ctx{.stream = *stream_,
                       .workspace = *workspace_,
                       .in = in,
                       .kv_cache = t_.cache.data(),
                       .layout = t_.cache.layout(),
                       .exchange = exchange,
                       .activation = t_.cache.layout().dtype,
                       .progress = progress_};
    const auto hidden = t_.model->lm().forward(ctx);
    REQUIRE(hidden.ok());
    const int64_t vocab = t_.model->config().vocab_size;
    const TensorView logits = workspace_->take(DType::kF32, {1, vocab});
    t_.model->lm().logits(hidden->slice_rows(n - 1, 1), logits, *stream_);
    stream_->synchronize();
    const float* row = logits.as<float>();
    return static_cast<TokenId>(std::max_element(row, row + vocab) - row);
  }

  TestModel& t_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Workspace> workspace_;
  std::vector<int32_t> table_;
  std::atomic<uint64_t> progress_ = 0;
};

// The faults that routing code is prone to. Each must change the text of a strict twin.
struct NamedFault {
  std::string name;
  FaultyExchange::Faults faults;
};
inline std::vector<NamedFault> routing_faults(int32_t experts) {
  return {
      {"the first experts always",
       {.ids =
            [](auto* ids) {
              for (size_t i = 0; i < ids->size(); ++i) (*ids)[i] = static_cast<int32_t>(i % 2);
            }}},
      {"expert ids off by one",
       {.ids =
            [experts](auto* ids) {
              for (int32_t& id : *ids) id = (id + 1) % experts;
            }}},
      {"experts of the next pair",
       {.ids =
            [experts](auto* ids) {
              for (int32_t& id : *ids) id = (id + 2) % experts;
            }}},
      {"only the first of two experts",
       {.weights =
            [](auto* weights) {
              for (size_t i = 1; i < weights->size(); i += 2) (*weights)[i] = 0.0f;
            }}},
      {"weights of the row before",
       {.ids =
            [](auto* ids) {
              if (ids->size() > 2) std::rotate(ids->begin(), ids->begin() + 2, ids->end());
            }}},
      {"every eighth row of experts lost",
       {.weights =
            [](auto* weights) {
              for (size_t i = 0; i < weights->size(); i += 8) (*weights)[i] = 0.0f;
            }}},
  };
}

}  // namespace flotilla
