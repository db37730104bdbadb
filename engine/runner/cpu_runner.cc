#include "engine/runner/cpu_runner.h"

#include <pthread.h>

#include <deque>
#include <thread>
#include <variant>

#include "common/fd.h"
#include "common/mutex.h"
#include "engine/parallel/expert_rows.h"
#include "engine/runner/slot_state.h"
#include "kernels/embedding.h"
#include "kernels/paged_attention.h"

namespace flotilla {
namespace {

// Rows of logits in memory at a time.
constexpr int64_t kLogitRows = 64;

class CpuRunner final : public ModelRunner {
 public:
  CpuRunner(Model& model,
            KvCache& cache,
            Device& device,
            ExpertExchange& exchange,
            const RunnerOptions& options);
  ~CpuRunner() override;

  int depth() const override { return 2; }
  void submit(StepPlan plan) override { enqueue(std::move(plan)); }
  void post(std::function<void()> work) override { enqueue(std::move(work)); }
  std::optional<StepResult> collect() override;
  int ready_fd() const override { return ready_.fd(); }
  uint64_t progress() const override { return progress_.load(std::memory_order_relaxed); }

 private:
  using Work = std::variant<StepPlan, std::function<void()>>;

  void enqueue(Work work);
  void thread_main();
  StepResult run_step(const StepPlan& plan);
  void build_inputs(const StepPlan& plan);
  void compute_outputs(const StepPlan& plan, const TensorView& hidden, StepResult* result);
  void sample_rows(const StepPlan& plan, const TensorView& hidden, StepResult* result);
  void score_prompt(const StepSequence& sequence,
                    int64_t first_row,
                    const TensorView& hidden,
                    SequenceOutput* out);
  TensorView logits_of(const TensorView& hidden,
                       const std::vector<int32_t>& rows,
                       size_t begin,
                       size_t count);

  Model& model_;
  KvCache& cache_;
  ExpertExchange& exchange_;
  const RunnerOptions options_;
  const std::unique_ptr<Stream> stream_;
  std::unique_ptr<Workspace> workspace_;
  std::vector<SlotState> slots_;
  std::optional<Epoch> failed_epoch_;  // nothing more of it is run
  std::atomic<uint64_t> progress_ = 0;

  // Inputs of the step that runs.
  std::vector<int32_t> tokens_, positions_, kv_slots_, q_offsets_, context_, block_table_;
  StepInputs inputs_;
  SamplerBatch sampler_;

  Mutex mutex_;
  CondVar work_available_;
  std::deque<Work> work_ GUARDED_BY(mutex_);
  std::deque<StepResult> results_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  WakeFd ready_;
  std::thread thread_;
};

size_t workspace_bytes(const ModelConfig& c,
                       const RunnerOptions& o,
                       const KvLayout& layout,
                       const Stream& stream) {
  const int64_t rows = o.max_num_batched_tokens;
  return forward_workspace_bytes(c, rows, kMaxExpertPairs) +
         paged_attention_workspace_bytes(rows, c.num_heads, o.max_model_len, layout, stream) +
         static_cast<size_t>(kLogitRows * (c.vocab_size + c.hidden_size)) * 4 +
         sample_workspace_bytes(kLogitRows, c.vocab_size, stream) + (1u << 20);
}

CpuRunner::CpuRunner(Model& model,
                     KvCache& cache,
                     Device& device,
                     ExpertExchange& exchange,
                     const RunnerOptions& options)
    : model_(model),
      cache_(cache),
      exchange_(exchange),
      options_(options),
      stream_(device.create_stream()),
      slots_(static_cast<size_t>(options.max_num_seqs)) {
  StatusOr<DeviceBuffer> buffer =
      device.allocate(workspace_bytes(model.config(), options, cache.layout(), *stream_));
  check(buffer.ok(), "no memory for the workspace: lower --max-num-batched-tokens");
  workspace_ = std::make_unique<Workspace>(std::move(*buffer));
  thread_ = std::thread([this] { thread_main(); });
}

CpuRunner::~CpuRunner() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  work_available_.notify_one();
  thread_.join();
}

void CpuRunner::enqueue(Work work) {
  {
    MutexLock lock(mutex_);
    work_.push_back(std::move(work));
  }
  work_available_.notify_one();
}

std::optional<StepResult> CpuRunner::collect() {
  ready_.drain();
  MutexLock lock(mutex_);
  if (results_.empty()) return std::nullopt;
  StepResult result = std::move(results_.front());
  results_.pop_front();
  if (!results_.empty()) ready_.wake();
  return result;
}

void CpuRunner::thread_main() {
  pthread_setname_np(pthread_self(), "device");
  while (true) {
    Work work;
    {
      MutexLock lock(mutex_);
      work_available_.wait(lock, [&] { return stopping_ || !work_.empty(); });
      if (stopping_) return;
      work = std::move(work_.front());
      work_.pop_front();
    }
    if (auto* plan = std::get_if<StepPlan>(&work)) {
      StepResult result = run_step(*plan);
      MutexLock lock(mutex_);
      results_.push_back(std::move(result));
    } else {
      std::get<std::function<void()>>(work)();
    }
    progress_.fetch_add(1, std::memory_order_relaxed);
    ready_.wake();
  }
}

StepResult CpuRunner::run_step(const StepPlan& plan) {
  StepResult result{
      .epoch = plan.grant.epoch, .step = plan.grant.step, .status = {}, .outputs = {}};
  result.started = result.finished = std::chrono::steady_clock::now();
  if (failed_epoch_ == plan.grant.epoch) {
    result.status = aborted("a step before it failed, whose tokens it needs");
    return result;
  }
  for (const StepSequence& s : plan.sequences) {
    SlotState& slot = slots_[static_cast<size_t>(s.slot)];
    if (s.reset) slot.reset(*s.reset);
    slot.append_blocks(s.new_blocks);
  }
  build_inputs(plan);
  Workspace::Scope scope(*workspace_);
  const auto waited_before = exchange_.waited();
  result.status = exchange_.begin_step(plan.grant);
  if (result.status.ok()) {
    ForwardContext ctx{.stream = *stream_,
                       .workspace = *workspace_,
                       .in = inputs_,
                       .kv_cache = cache_.data(),
                       .layout = cache_.layout(),
                       .exchange = exchange_,
                       .activation = options_.activation,
                       .progress = progress_};
    const StatusOr<TensorView> hidden = model_.lm().forward(ctx);
    if (hidden.ok()) {
      compute_outputs(plan, *hidden, &result);
    } else {
      result.status = hidden.status();
    }
  }
  if (!result.status.ok()) failed_epoch_ = plan.grant.epoch;
  result.finished = std::chrono::steady_clock::now();
  result.exchange_wait = exchange_.waited() - waited_before;
  return result;
}

void CpuRunner::build_inputs(const StepPlan& plan) {
  const KvLayout& layout = cache_.layout();
  tokens_.clear();
  positions_.clear();
  kv_slots_.clear();
  context_.clear();
  q_offsets_.assign(1, 0);
  size_t width = 1;
  int64_t max_context = 0;
  for (const StepSequence& s : plan.sequences) {
    width = std::max(width, slots_[static_cast<size_t>(s.slot)].table().size());
  }
  block_table_.assign(width * plan.sequences.size(), 0);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const StepSequence& s = plan.sequences[i];
    const SlotState& slot = slots_[static_cast<size_t>(s.slot)];
    const std::vector<BlockId>& table = slot.table();
    for (size_t b = 0; b < table.size(); ++b) block_table_[i * width + b] = table[b].value;
    for (int32_t t = 0; t < s.num_tokens; ++t) {
      const int64_t position = s.position + t;
      tokens_.push_back(s.tokens.empty() ? slot.last_token() : s.tokens[static_cast<size_t>(t)]);
      positions_.push_back(static_cast<int32_t>(position));
      const auto block = table[static_cast<size_t>(position / layout.block_size)];
      kv_slots_.push_back(
          static_cast<int32_t>(block.value * layout.block_size + position % layout.block_size));
    }
    context_.push_back(s.position + s.num_tokens);
    max_context = std::max<int64_t>(max_context, context_.back());
    q_offsets_.push_back(static_cast<int32_t>(tokens_.size()));
  }
  const auto rows = static_cast<int64_t>(tokens_.size());
  const auto sequences = static_cast<int64_t>(plan.sequences.size());
  inputs_.tokens = TensorView(tokens_.data(), DType::kI32, {rows});
  inputs_.positions = TensorView(positions_.data(), DType::kI32, {rows});
  inputs_.slots = TensorView(kv_slots_.data(), DType::kI32, {rows});
  inputs_.q_offsets = TensorView(q_offsets_.data(), DType::kI32, {sequences + 1});
  inputs_.context = TensorView(context_.data(), DType::kI32, {sequences});
  inputs_.block_table =
      TensorView(block_table_.data(), DType::kI32, {sequences, static_cast<int64_t>(width)});
  inputs_.max_context = max_context;
}

void CpuRunner::compute_outputs(const StepPlan& plan,
                                const TensorView& hidden,
                                StepResult* result) {
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const StepSequence& s = plan.sequences[i];
    SequenceOutput& out = result->outputs.emplace_back();
    out.id = s.id;
    if (!s.prompt_targets.empty()) score_prompt(s, q_offsets_[i], hidden, &out);
  }
  sample_rows(plan, hidden, result);
}

TensorView CpuRunner::logits_of(const TensorView& hidden,
                                const std::vector<int32_t>& rows,
                                size_t begin,
                                size_t count) {
  const auto n = static_cast<int64_t>(count);
  const TensorView picked = workspace_->take(hidden.dtype, {n, hidden.cols()});
  const TensorView row_ids(const_cast<int32_t*>(rows.data() + begin), DType::kI32, {n});
  gather_rows({.x = hidden, .rows = row_ids, .y = picked}, *stream_);
  const TensorView logits = workspace_->take(DType::kF32, {n, model_.config().vocab_size});
  model_.lm().logits(picked, logits, *stream_);
  return logits;
}

PositionLogprobs position_logprobs(TokenId token,
                                   float logprob,
                                   int32_t rank,
                                   const int32_t* ids,
                                   const float* values,
                                   int32_t n) {
  PositionLogprobs out{.chosen = {token, logprob, rank}, .top = {}};
  for (int32_t j = 0; j < n; ++j) out.top.push_back({ids[j], values[j], j + 1});
  return out;
}

void CpuRunner::sample_rows(const StepPlan& plan, const TensorView& hidden, StepResult* result) {
  std::vector<int32_t> rows;
  std::vector<size_t> sequence_of;
  sampler_.clear();
  int32_t top = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const StepSequence& s = plan.sequences[i];
    if (!s.sample) continue;
    rows.push_back(q_offsets_[i + 1] - 1);
    sequence_of.push_back(i);
    slots_[static_cast<size_t>(s.slot)].add_sampler_row(s.position + s.num_tokens, &sampler_);
    top = std::max(top, sampler_.rows.back().num_logprobs);
  }
  std::vector<int32_t> ranks(kLogitRows), tokens(kLogitRows),
      top_ids(static_cast<size_t>(kLogitRows) * static_cast<size_t>(top));
  std::vector<float> logprobs(kLogitRows), top_logprobs(top_ids.size());
  for (size_t begin = 0; begin < rows.size(); begin += kLogitRows) {
    const size_t count = std::min<size_t>(kLogitRows, rows.size() - begin);
    const auto n = static_cast<int64_t>(count);
    Workspace::Scope scope(*workspace_);
    const TensorView logits = logits_of(hidden, rows, begin, count);
    SampleParams params;
    params.logits = logits;
    params.rows = sampler_.rows.data() + begin;
    params.seen = sampler_.seen.data();
    params.bias = sampler_.bias.data();
    params.banned = sampler_.banned.data();
    params.tokens = TensorView(tokens.data(), DType::kI32, {n});
    params.logprobs = TensorView(logprobs.data(), DType::kF32, {n});
    params.ranks = TensorView(ranks.data(), DType::kI32, {n});
    if (top > 0) {
      params.top_ids = TensorView(top_ids.data(), DType::kI32, {n, top});
      params.top_logprobs = TensorView(top_logprobs.data(), DType::kF32, {n, top});
    }
    params.workspace =
        workspace_->take_bytes(sample_workspace_bytes(n, model_.config().vocab_size, *stream_));
    sample(params, *stream_);
    stream_->synchronize();
    for (size_t r = 0; r < count; ++r) {
      const size_t i = sequence_of[begin + r];
      slots_[static_cast<size_t>(plan.sequences[i].slot)].append(tokens[r]);
      SequenceOutput& out = result->outputs[i];
      out.token = tokens[r];
      const int32_t wanted = params.rows[r].num_logprobs;
      if (wanted < 0) continue;
      const size_t at = r * static_cast<size_t>(top);
      out.logprobs = position_logprobs(
          tokens[r], logprobs[r], ranks[r], top_ids.data() + at, top_logprobs.data() + at, wanted);
    }
  }
}

void CpuRunner::score_prompt(const StepSequence& s,
                             int64_t first_row,
                             const TensorView& hidden,
                             SequenceOutput* out) {
  const int32_t top = s.prompt_top;
  const size_t total = s.prompt_targets.size();
  std::vector<int32_t> rows(total), ranks(kLogitRows),
      top_ids(static_cast<size_t>(kLogitRows * std::max(1, top)));
  std::vector<float> logprobs(kLogitRows), top_logprobs(top_ids.size());
  for (size_t i = 0; i < total; ++i)
    rows[i] = static_cast<int32_t>(first_row + static_cast<int64_t>(i));
  for (size_t begin = 0; begin < total; begin += kLogitRows) {
    const size_t count = std::min<size_t>(kLogitRows, total - begin);
    const auto n = static_cast<int64_t>(count);
    Workspace::Scope scope(*workspace_);
    TokenLogprobsParams params;
    params.logits = logits_of(hidden, rows, begin, count);
    params.targets =
        TensorView(const_cast<TokenId*>(s.prompt_targets.data() + begin), DType::kI32, {n});
    params.num_top = top;
    params.logprobs = TensorView(logprobs.data(), DType::kF32, {n});
    params.ranks = TensorView(ranks.data(), DType::kI32, {n});
    params.top_ids = TensorView(top_ids.data(), DType::kI32, {n, std::max(1, top)});
    params.top_logprobs = TensorView(top_logprobs.data(), DType::kF32, {n, std::max(1, top)});
    token_logprobs(params, *stream_);
    stream_->synchronize();
    for (size_t r = 0; r < count; ++r) {
      const size_t at = r * static_cast<size_t>(std::max(1, top));
      out->prompt_logprobs.push_back(position_logprobs(s.prompt_targets[begin + r],
                                                       logprobs[r],
                                                       ranks[r],
                                                       top_ids.data() + at,
                                                       top_logprobs.data() + at,
                                                       top));
    }
    progress_.fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace

std::unique_ptr<ModelRunner> make_cpu_runner(Model& model,
                                             KvCache& cache,
                                             Device& device,
                                             ExpertExchange& exchange,
                                             const RunnerOptions& options) {
  return std::make_unique<CpuRunner>(model, cache, device, exchange, options);
}

}  // namespace flotilla
