// Every fixture's checkpoint against the logits and greedy tokens that its reference implementation
// gave.
#include <cmath>

#include "engine/runner/cpu_runner.h"
#include "kernels/embedding.h"
#include "tests/engine/model/fixture.h"

using namespace flotilla;

namespace {

// Runs a sequence on one model, token by token or in chunks, in blocks 1, 2, … of its cache.
class Sequence {
 public:
  explicit Sequence(TestModel& t) : t_(t), stream_(t.device->create_stream()) {
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

std::vector<double> log_softmax(const std::vector<float>& logits) {
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
RowError row_error(const std::vector<float>& got, const std::vector<float>& wanted) {
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

TokenId argmax(const std::vector<float>& v) {
  return static_cast<TokenId>(std::max_element(v.begin(), v.end()) - v.begin());
}

std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> all;
  for (const CpuIsa isa :
       {CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (cpu_has(isa)) all.push_back(isa);
  }
  return all;
}

}  // namespace

TEST_CASE("Model.F32MatchesTheReferenceOnEveryRow") {
  for (const std::string& dir : fixture_dirs()) {
    const Fixture fixture = load_fixture(dir);
    for (const CpuIsa isa : isas()) {
      CAPTURE(fixture.name);
      CAPTURE(cpu_isa_name(isa));
      TestModel t = bring_up(dir, DType::kF32, isa);
      for (const ReferencePrompt& p : fixture.prompts) {
        Sequence s(t);
        const auto rows = s.run(p.ids);
        for (size_t r = 0; r < p.logits.size(); ++r) {
          const RowError e = row_error(rows[rows.size() - p.logits.size() + r], p.logits[r]);
          CHECK(e.max <= 1e-4);
        }
        TokenId next = argmax(rows.back());
        for (size_t i = 0; i < p.greedy.size(); ++i) {
          REQUIRE(next == p.greedy[i]);
          next = argmax(s.run({next}).front());
        }
      }
    }
  }
}

TEST_CASE("Model.Bf16StaysCloseToTheReference") {
  for (const std::string& dir : fixture_dirs()) {
    const Fixture fixture = load_fixture(dir);
    for (const CpuIsa isa : isas()) {
      CAPTURE(fixture.name);
      CAPTURE(cpu_isa_name(isa));
      TestModel t = bring_up(dir, DType::kBf16, isa);
      std::vector<double> errors;
      double kl = 0;
      for (const ReferencePrompt& p : fixture.prompts) {
        Sequence s(t);
        const auto rows = s.run(p.ids);
        for (size_t r = 0; r < p.logits.size(); ++r) {
          const RowError e = row_error(rows[rows.size() - p.logits.size() + r], p.logits[r]);
          errors.push_back(e.mean);
          kl += e.kl;
        }
        // Tokens are the reference's up to the first one whose margin is below what bf16 can tell
        // apart.
        std::vector<float> row = rows.back();
        for (size_t i = 0; i < p.greedy.size(); ++i) {
          const auto [low, high] = std::minmax_element(row.begin(), row.end());
          if (argmax(row) != p.greedy[i]) {
            CHECK(p.margin[i] <= 2e-2 * (*high - *low));
            break;
          }
          row = s.run({p.greedy[i]}).front();
        }
      }
      std::sort(errors.begin(), errors.end());
      CHECK(errors[errors.size() / 2] <= 3e-3);
      CHECK(errors[errors.size() * 9 / 10] <= 1e-2);
      CHECK(kl / static_cast<double>(errors.size()) <= 2e-2);
    }
  }
}
