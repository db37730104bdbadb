#include "engine/metrics.h"

#include <algorithm>

namespace flotilla {
namespace {

const std::vector<double> kStepBuckets = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
const std::vector<double> kStepTokenBuckets = {
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const std::vector<double> kMicrosecondBuckets = {20e-6,
                                                 40e-6,
                                                 50e-6,
                                                 60e-6,
                                                 100e-6,
                                                 150e-6,
                                                 200e-6,
                                                 300e-6,
                                                 500e-6,
                                                 1e-3,
                                                 2e-3,
                                                 5e-3,
                                                 10e-3,
                                                 25e-3,
                                                 100e-3,
                                                 1,
                                                 10};
const std::vector<double> kPauseBuckets = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60};
const std::vector<double> kDrainBuckets = {0.1, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600};

std::string flag(bool on) { return on ? "True" : "False"; }

}  // namespace

EngineMetrics::EngineMetrics(MetricsRegistry* registry) : registry_(registry) {
  MetricsRegistry& r = *registry;
  running_ = r.gauge({"fastdeploy:num_requests_running",
                      "Sequences that take part in steps.",
                      {"vllm:num_requests_running"}});
  waiting_ = r.gauge({"fastdeploy:num_requests_waiting",
                      "Sequences that wait to be scheduled.",
                      {"vllm:num_requests_waiting"}});
  enqueued_ = r.gauge({"fastdeploy:num_requests_enqueued",
                       "Sequences that wait to be scheduled for the first time or again."});
  preempted_now_ = r.gauge({"fastdeploy:num_requests_preempted",
                            "Sequences that lost their blocks and wait to be computed again."});
  batch_size_ = r.gauge({"fastdeploy:batch_size", "Sequences in the current step."});
  max_batch_size_ = r.gauge({"fastdeploy:max_batch_size", "Most sequences that a step can hold."});
  available_batch_size_ =
      r.gauge({"fastdeploy:available_batch_size", "Sequences that could still join a step."});
  cache_usage_ = r.gauge({"fastdeploy:gpu_cache_usage_perc",
                          "KV blocks that hold live sequences, as a part of all, 0 to 1.",
                          {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"}});
  available_blocks_ = r.gauge(
      {"fastdeploy:available_gpu_block_num", "KV blocks free or holding only evictable prefixes."});
  free_blocks_ =
      r.gauge({"fastdeploy:free_gpu_block_num", "KV blocks that no live sequence holds."});
  max_blocks_ = r.gauge({"fastdeploy:max_gpu_block_num", "KV blocks of the pool."});
  available_resource_ = r.gauge(
      {"fastdeploy:available_gpu_resource", "KV blocks available, as a part of all, 0 to 1."});
  tokens_to_prefill_ =
      r.gauge({"flotilla_tokens_to_prefill", "Prompt tokens admitted but not yet computed."});

  hit_request_rate_ = r.gauge(
      {"fastdeploy:hit_req_rate", "Part of the prompts that found something in the prefix cache."});
  hit_token_rate_ = r.gauge(
      {"fastdeploy:hit_token_rate", "Part of the prompt tokens found in the prefix cache."});
  gpu_hit_token_rate_ = r.gauge({"fastdeploy:gpu_hit_token_rate",
                                 "Part of the prompt tokens found in the device's prefix cache."});
  cpu_hit_token_rate_ =
      r.gauge({"fastdeploy:cpu_hit_token_rate",
               "Part of the prompt tokens found in a second tier; there is none."});
  prefix_queries_ = r.counter({"flotilla_prefix_cache_queried_tokens_total",
                               "Prompt tokens looked up in the prefix cache.",
                               {"vllm:prefix_cache_queries_total"}});
  prefix_hits_ =
      r.counter({"fastdeploy:prefix_cache_token_num_total",
                 "Prompt tokens found in the prefix cache.",
                 {"fastdeploy:prefix_gpu_cache_token_num_total", "vllm:prefix_cache_hits_total"}});
  prompt_tokens_ = r.counter({"fastdeploy:prompt_tokens_total",
                              "Prompt tokens of admitted sequences.",
                              {"vllm:prompt_tokens_total"}});
  generation_tokens_ = r.counter(
      {"fastdeploy:generation_tokens_total", "Tokens sampled.", {"vllm:generation_tokens_total"}});
  preempted_ = r.counter({"fastdeploy:request_preempted_total",
                          "Sequences pushed out of their blocks, to be computed again.",
                          {"vllm:num_preemptions_total"}});
  cancelled_ = r.counter({"flotilla_sequences_cancelled_total",
                          "Sequences ended because nobody wants them any more."});
  refused_ = r.counter(
      {"flotilla_sequences_refused_total", "Sequences refused because the queue was full."});

  step_seconds_ =
      r.histogram({"flotilla_step_seconds", "Time of a step, planned to collected."}, kStepBuckets);
  step_tokens_ =
      r.histogram({"flotilla_step_tokens", "Tokens that a step worked on."}, kStepTokenBuckets);
  const MetricSpec steps = {"flotilla_steps_total",
                            "Steps taken; work=\"others\" are those without tokens of this rank."};
  steps_with_work_ = r.counter(steps, {{"work", "own"}});
  steps_for_others_ = r.counter(steps, {{"work", "others"}});
  clock_wait_seconds_ =
      r.histogram({"flotilla_clock_wait_seconds", "From the wish for a step to the clock's go."},
                  kMicrosecondBuckets);
  exchange_seconds_ = r.histogram(
      {"flotilla_exchange_seconds", "Dispatch and combine of one MoE layer over the ranks."},
      kMicrosecondBuckets);

  epochs_ = r.counter({"flotilla_epochs_total", "Groups of ranks formed since this rank started."});
  epoch_ = r.gauge({"flotilla_epoch", "Number of the current group of ranks."});
  ranks_alive_ = r.gauge({"flotilla_ranks_alive", "Ranks in the current group."});
  ranks_configured_ = r.gauge({"flotilla_ranks_configured", "Ranks that the fleet should have."});
  degraded_ =
      r.gauge({"flotilla_degraded", "1 while fewer ranks serve than the fleet should have."});
  ranks_lost_ = r.counter(
      {"flotilla_rank_losses_total", "Ranks of a group that were killed, crashed or fell silent."});
  epoch_pause_seconds_ = r.histogram(
      {"flotilla_epoch_pause_seconds", "How long this rank stood still for a new group."},
      kPauseBuckets);
  draining_ =
      r.gauge({"flotilla_draining", "1 while this rank finishes its work in order to end."});
  drain_seconds_ = r.histogram(
      {"flotilla_drain_seconds", "From the wish to end to the last token."}, kDrainBuckets);
  stall_seconds_ = r.gauge({"flotilla_seconds_without_progress",
                            "Time since the engine last moved while it had work; 0 when idle."});
  last_step_age_seconds_ = r.gauge(
      {"flotilla_last_step_age_seconds", "Time since the last step ended; 0 before the first."});
}

void EngineMetrics::configured(const EngineMetricsConfig& config) {
  max_num_seqs_.store(config.max_num_seqs, std::memory_order_relaxed);
  max_batch_size_.set(static_cast<double>(config.max_num_seqs));
  registry_
      ->gauge({"fastdeploy:cache_config_info",
               "Settings of the KV cache, as labels.",
               {"vllm:cache_config_info"}},
              {{"block_size", std::to_string(config.block_size)},
               {"num_gpu_blocks", std::to_string(config.num_blocks)},
               {"cache_dtype", config.kv_dtype},
               {"enable_prefix_caching", flag(config.prefix_caching)},
               {"max_num_seqs", std::to_string(config.max_num_seqs)},
               {"max_num_batched_tokens", std::to_string(config.max_num_batched_tokens)},
               {"max_model_len", std::to_string(config.max_model_len)}})
      .set(1);
}

void EngineMetrics::show_load(const EngineLoad& load, const EngineHealth& health) {
  running_.set(load.running);
  waiting_.set(load.waiting);
  enqueued_.set(load.waiting);
  batch_size_.set(load.running);
  const int64_t max_num_seqs = max_num_seqs_.load(std::memory_order_relaxed);
  available_batch_size_.set(
      static_cast<double>(std::max<int64_t>(0, max_num_seqs - static_cast<int64_t>(load.running))));

  const auto total = static_cast<double>(load.blocks_total);
  const auto used = static_cast<double>(load.blocks_used);
  const double used_part = total > 0 ? used / total : 0;
  cache_usage_.set(used_part);
  available_blocks_.set(total - used);
  free_blocks_.set(total - used);
  max_blocks_.set(total);
  available_resource_.set(total > 0 ? 1 - used_part : 0);
  tokens_to_prefill_.set(static_cast<double>(load.tokens_to_prefill));

  const auto prompts = static_cast<double>(prompts_.load(std::memory_order_relaxed));
  const auto prompts_hit = static_cast<double>(prompts_hit_.load(std::memory_order_relaxed));
  hit_request_rate_.set(prompts > 0 ? prompts_hit / prompts : 0);
  const double queried = prefix_queries_.value();
  const double hit_rate = queried > 0 ? prefix_hits_.value() / queried : 0;
  hit_token_rate_.set(hit_rate);
  gpu_hit_token_rate_.set(hit_rate);
  cpu_hit_token_rate_.set(0);

  degraded_.set(health.degraded ? 1 : 0);
  draining_.set(load.draining ? 1 : 0);
  stall_seconds_.set(health.seconds_without_progress);
  const auto last_step = last_step_.load(std::memory_order_relaxed);
  if (last_step != 0) {
    const auto age = std::chrono::steady_clock::now().time_since_epoch() -
                     std::chrono::steady_clock::duration(last_step);
    last_step_age_seconds_.set(Seconds(age).count());
  }
}

void EngineMetrics::step_finished(Seconds duration, const StepCounts& counts) {
  last_step_.store(std::chrono::steady_clock::now().time_since_epoch().count(),
                   std::memory_order_relaxed);
  step_seconds_.observe(duration.count());
  if (counts.sequences == 0) {
    steps_for_others_.add();
    return;
  }
  steps_with_work_.add();
  step_tokens_.observe(counts.prefill_tokens + counts.decode_tokens);
}

void EngineMetrics::clock_waited(Seconds wait) { clock_wait_seconds_.observe(wait.count()); }
void EngineMetrics::exchange_finished(Seconds duration) {
  exchange_seconds_.observe(duration.count());
}
void EngineMetrics::tokens_sampled(uint64_t tokens) {
  generation_tokens_.add(static_cast<double>(tokens));
}

void EngineMetrics::prompt_admitted(uint64_t prompt_tokens, uint64_t cached_tokens) {
  prompt_tokens_.add(static_cast<double>(prompt_tokens));
  prefix_queries_.add(static_cast<double>(prompt_tokens));
  prefix_hits_.add(static_cast<double>(cached_tokens));
  prompts_.fetch_add(1, std::memory_order_relaxed);
  if (cached_tokens > 0) prompts_hit_.fetch_add(1, std::memory_order_relaxed);
}

void EngineMetrics::preempted() {
  preempted_.add();
  preempted_now_.add(1);
}
void EngineMetrics::resumed() { preempted_now_.add(-1); }
void EngineMetrics::cancelled() { cancelled_.add(); }
void EngineMetrics::refused() { refused_.add(); }

void EngineMetrics::epoch_started(uint64_t epoch, uint32_t members, uint32_t fleet, Seconds pause) {
  epochs_.add();
  epoch_.set(static_cast<double>(epoch));
  ranks_alive_.set(members);
  ranks_configured_.set(fleet);
  degraded_.set(members < fleet ? 1 : 0);
  epoch_pause_seconds_.observe(pause.count());
}

void EngineMetrics::ranks_lost(uint32_t ranks) { ranks_lost_.add(ranks); }
void EngineMetrics::drain_started() { draining_.set(1); }
void EngineMetrics::drain_finished(Seconds duration) { drain_seconds_.observe(duration.count()); }

}  // namespace flotilla
