#include "tools/bench/engine/engine_bench.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <random>

#include "common/crypto.h"
#include "common/mutex.h"
#include "engine/rank_engine.h"
#include "launcher/step_clock_server.h"

namespace flotilla::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::minutes kPatience{30};

// Notes when the last first token and the last token of all came.
class Stopwatch final : public TokenSink {
 public:
  void on_tokens(std::span<TokenBatch> batches) override {
    MutexLock lock(mutex_);
    for (const TokenBatch& b : batches) {
      if (b.first_index == 0) first_ = std::max(first_, b.produced_at);
      if (b.finish == FinishReason::kRunning) continue;
      last_ = std::max(last_, b.produced_at);
      failed_ |= b.finish == FinishReason::kError || b.finish == FinishReason::kCancelled;
      ++finished_;
    }
    changed_.notify_all();
  }
  bool wait(int32_t n) {
    MutexLock lock(mutex_);
    return changed_.wait_until(lock, Clock::now() + kPatience, [&] { return finished_ >= n; }) &&
           !failed_;
  }
  Clock::time_point first() const {
    MutexLock lock(mutex_);
    return first_;
  }
  Clock::time_point last() const {
    MutexLock lock(mutex_);
    return last_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  Clock::time_point first_ GUARDED_BY(mutex_){}, last_ GUARDED_BY(mutex_){};
  int32_t finished_ GUARDED_BY(mutex_) = 0;
  bool failed_ GUARDED_BY(mutex_) = false;
};

struct NoEvents final : FleetEvents {
  void on_progress(Rank, pid_t, std::string, double) override {}
  void on_serving(Rank, pid_t, double) override {}
  void on_hung(Rank, pid_t, std::string) override {}
  void on_refused(Rank, pid_t, std::string) override {}
};

// Ranks as engines in this process, with a clock if there are several.
class Fleet {
 public:
  explicit Fleet(const EngineBenchOptions& o) : options_(o) {}
  ~Fleet() {
    ranks_.clear();
    clock_.reset();
    std::error_code ignored;
    if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
  }

  Status start() {
    if (options_.ranks > 1) {
      dir_ = std::filesystem::temp_directory_path() / ("flotilla-bench-" + to_hex(random_bytes(6)));
      std::filesystem::create_directory(dir_);
      std::filesystem::permissions(dir_, std::filesystem::perms::owner_all);
      StatusOr<std::unique_ptr<StepClockServer>> clock =
          StepClockServer::start(dir_ / "clock.sock", {.num_ranks = options_.ranks}, events_);
      if (!clock.ok()) return clock.status();
      clock_ = std::move(*clock);
    }
    for (int32_t r = 0; r < options_.ranks; ++r) {
      StatusOr<std::unique_ptr<RankEngine>> engine = RankEngine::create(rank_options(r), nullptr);
      if (!engine.ok()) return engine.status();
      ranks_.push_back(std::move(*engine));
    }
    for (const auto& rank : ranks_) {
      if (!rank->wait_started(Clock::now() + kPatience) ||
          rank->health().state == EngineState::kFailed) {
        return internal_error("a rank did not start: " + rank->health().detail);
      }
    }
    return ok_status();
  }

  RankEngine& rank(int32_t i) { return *ranks_[static_cast<size_t>(i % options_.ranks)]; }

 private:
  RankEngineOptions rank_options(int32_t r) const {
    RankEngineOptions o;
    o.model.dir = options_.model;
    o.model.dummy_weights = options_.dummy_weights;
    o.cpu.num_threads = options_.num_threads;
    o.cpu.isa = options_.isa;
    const auto per_rank = static_cast<size_t>(options_.num_threads);
    for (size_t i = 0; i < per_rank && !options_.cores.empty(); ++i) {
      o.cpu.cores.push_back(
          options_.cores[(static_cast<size_t>(r) * per_rank + i) % options_.cores.size()]);
    }
    o.activation = options_.activation;
    const int32_t batch = (options_.batch + options_.ranks - 1) / options_.ranks;
    o.max_num_seqs = batch;
    o.max_num_batched_tokens = std::max(options_.max_num_batched_tokens, batch);
    o.block_size = options_.block_size;
    o.max_model_len = options_.prompt + options_.gen;
    o.num_blocks = batch * ((options_.prompt + options_.gen) / options_.block_size + 2);
    o.prefix_caching = false;
    o.group.rank = Rank(r);
    o.group.num_ranks = options_.ranks;
    if (clock_) {
      o.group.expert_parallel = true;
      o.group.clock_socket = dir_ / "clock.sock";
      o.group.mesh_directory = dir_;
      o.group.cluster_secret = "bench";
    }
    return o;
  }

  const EngineBenchOptions options_;
  std::filesystem::path dir_;
  NoEvents events_;
  std::unique_ptr<StepClockServer> clock_;
  std::vector<std::unique_ptr<RankEngine>> ranks_;
};

}  // namespace

StatusOr<EngineBenchResult> bench_engine(const EngineBenchOptions& options,
                                         const std::function<void(const std::string&)>& progress) {
  Fleet fleet(options);
  FLOTILLA_RETURN_IF_ERROR(fleet.start());
  const int64_t vocab = fleet.rank(0).limits().vocab_size;
  EngineBenchResult result;
  std::mt19937 random(1);
  for (int run = 0; run <= options.runs; ++run) {
    Stopwatch watch;
    std::vector<GenerationRequest> requests(static_cast<size_t>(options.batch));
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].id = i;
      for (int32_t t = 0; t < options.prompt; ++t) {
        requests[i].prompt.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(vocab)));
      }
      requests[i].sampling.temperature = 0.0f;
      requests[i].sampling.max_tokens = static_cast<uint32_t>(options.gen);
      requests[i].sampling.ignore_eos = true;
    }
    const auto begin = Clock::now();
    for (size_t i = 0; i < requests.size(); ++i) {
      FLOTILLA_RETURN_IF_ERROR(
          fleet.rank(static_cast<int32_t>(i)).submit(std::move(requests[i]), &watch));
    }
    if (!watch.wait(options.batch)) return internal_error("a sequence did not finish");
    if (run == 0) continue;  // warm-up
    const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
    result.prefill_tok_s.push_back(options.batch * options.prompt / seconds(watch.first() - begin));
    if (options.gen > 1) {
      result.decode_tok_s.push_back(options.batch * (options.gen - 1) /
                                    seconds(watch.last() - watch.first()));
    }
    char line[128];
    std::snprintf(line,
                  sizeof line,
                  "run %d: prefill %.1f tok/s, decode %.1f tok/s",
                  run,
                  result.prefill_tok_s.back(),
                  result.decode_tok_s.empty() ? 0.0 : result.decode_tok_s.back());
    progress(line);
  }
  return result;
}

}  // namespace flotilla::bench
