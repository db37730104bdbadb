// What the engine of one rank counts: steps, the step clock, the expert exchange, epochs, KV
// blocks, the prefix cache. Verbs only; the names are in metrics.cc and in docs/metrics.md. What a
// request's client sees (time to first token and the like) is counted at the front, in
// api_server/generation/server_metrics.h. Threads: any. All times are differences of one monotonic clock of this
// process.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "common/metrics.h"
#include "engine/engine.h"

namespace flotilla {

// Fixed for the life of the engine; shown as labels and gauges.
struct EngineMetricsConfig {
  int64_t max_num_seqs = 0;
  int64_t block_size = 0;  // tokens per KV block
  int64_t num_blocks = 0;
  std::string kv_dtype;
  bool prefix_caching = true;
  int64_t max_num_batched_tokens = 0;
  int64_t max_model_len = 0;
};

struct StepCounts {
  uint32_t prefill_tokens = 0;
  uint32_t decode_tokens = 0;
  uint32_t sequences = 0;  // 0: this rank only took part for the others
};

class EngineMetrics {
 public:
  using Seconds = std::chrono::duration<double>;

  explicit EngineMetrics(MetricsRegistry* registry);

  // Once, when the model is loaded and the pool is made.
  void configured(const EngineMetricsConfig& config);
  // Before each export (MetricsRegistry::on_export), from the engine's own figures.
  void show_load(const EngineLoad& load, const EngineHealth& health);

  void step_finished(Seconds duration, const StepCounts& counts);
  void clock_waited(Seconds wait);  // from `want` sent to `go` received, with work to do
  void exchange_finished(
      Seconds duration);  // dispatch and combine of one MoE layer, without the experts' own work
  void tokens_sampled(uint64_t tokens);
  // Each time a sequence is admitted: of `prompt_tokens`, `cached_tokens` were found in the prefix
  // cache.
  void prompt_admitted(uint64_t prompt_tokens, uint64_t cached_tokens);
  void preempted();  // a sequence lost its blocks …
  void resumed();    // … and has some again, or ended
  void cancelled();
  void refused();  // the queue was full

  // A group was formed: `members` of `fleet` ranks serve. `pause` is how long this rank stood still
  // for it.
  void epoch_started(uint64_t epoch, uint32_t members, uint32_t fleet, Seconds pause);
  void ranks_lost(
      uint32_t ranks);  // members of the last epoch that are gone without having drained
  void drain_started();
  void drain_finished(Seconds duration);

 private:
  MetricsRegistry* registry_;
  Gauge running_, waiting_, enqueued_, preempted_now_, batch_size_, max_batch_size_,
      available_batch_size_;
  Gauge cache_usage_, available_blocks_, free_blocks_, max_blocks_, available_resource_,
      tokens_to_prefill_;
  Gauge hit_request_rate_, hit_token_rate_, gpu_hit_token_rate_, cpu_hit_token_rate_;
  Counter prefix_queries_, prefix_hits_, prompt_tokens_, generation_tokens_;
  Counter preempted_, cancelled_, refused_;
  Histogram step_seconds_, step_tokens_, clock_wait_seconds_, exchange_seconds_,
      epoch_pause_seconds_, drain_seconds_;
  Counter steps_with_work_, steps_for_others_, epochs_, ranks_lost_;
  Gauge epoch_, ranks_alive_, ranks_configured_, degraded_, draining_, stall_seconds_,
      last_step_age_seconds_;

  std::atomic<int64_t> max_num_seqs_{0};
  std::atomic<uint64_t> prompts_{0}, prompts_hit_{0};
  std::atomic<std::chrono::steady_clock::rep> last_step_{
      0};  // time since the clock's epoch; 0: no step yet
};

}  // namespace flotilla
