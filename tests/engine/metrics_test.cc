#include "engine/metrics.h"

#include <doctest/doctest.h>

namespace flotilla {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("EngineMetrics.MirrorsTheLoadAsGaugesUnderBothNames") {
  MetricsRegistry registry;
  EngineMetrics metrics(&registry);
  metrics.configured({.max_num_seqs = 64,
                      .block_size = 64,
                      .num_blocks = 200,
                      .kv_dtype = "bf16",
                      .max_num_batched_tokens = 8192,
                      .max_model_len = 12288});
  metrics.show_load(
      {.running = 3, .waiting = 2, .blocks_used = 50, .blocks_total = 200},
      {.state = EngineState::kServing, .seconds_without_progress = 1.5, .detail = ""});

  const std::string text = registry.text();
  CHECK(has(text, "fastdeploy:num_requests_running 3\n"));
  CHECK(has(text, "vllm:num_requests_running 3\n"));
  CHECK(has(text, "vllm:num_requests_waiting 2\n"));
  CHECK(has(text, "fastdeploy:gpu_cache_usage_perc 0.25\n"));
  CHECK(has(text, "vllm:kv_cache_usage_perc 0.25\n"));
  CHECK(has(text, "fastdeploy:available_batch_size 61\n"));
  CHECK(has(text, "fastdeploy:available_gpu_block_num 150\n"));
  CHECK(has(text, "flotilla_seconds_without_progress 1.5\n"));
  CHECK(has(text, "vllm:cache_config_info{block_size=\"64\""));
  CHECK(has(text, "num_gpu_blocks=\"200\"} 1\n"));
}

TEST_CASE("EngineMetrics.TellsOwnStepsFromThoseForOthers") {
  MetricsRegistry registry;
  EngineMetrics metrics(&registry);
  using std::chrono::milliseconds;
  metrics.step_finished(milliseconds(3),
                        {.prefill_tokens = 100, .decode_tokens = 4, .sequences = 5});
  metrics.step_finished(milliseconds(3), {});
  metrics.step_finished(milliseconds(3), {});

  const std::string text = registry.text();
  CHECK(has(text, "flotilla_steps_total{work=\"own\"} 1\n"));
  CHECK(has(text, "flotilla_steps_total{work=\"others\"} 2\n"));
  CHECK(has(text, "flotilla_step_seconds_count 3\n"));
  CHECK(has(text, "flotilla_step_tokens_sum 104\n"));
}

TEST_CASE("EngineMetrics.CountsPrefixHitsByTokenAndByRequest") {
  MetricsRegistry registry;
  EngineMetrics metrics(&registry);
  metrics.prompt_admitted(100, 64);
  metrics.prompt_admitted(100, 0);
  metrics.show_load({}, {});

  const std::string text = registry.text();
  CHECK(has(text, "fastdeploy:prompt_tokens_total 200\n"));
  CHECK(has(text, "vllm:prefix_cache_queries_total 200\n"));
  CHECK(has(text, "vllm:prefix_cache_hits_total 64\n"));
  CHECK(has(text, "fastdeploy:hit_token_rate 0.32\n"));
  CHECK(has(text, "fastdeploy:hit_req_rate 0.5\n"));
}

TEST_CASE("EngineMetrics.ShowsADegradedGroupAndItsReturn") {
  MetricsRegistry registry;
  EngineMetrics metrics(&registry);
  using std::chrono::milliseconds;
  metrics.epoch_started(7, 3, 4, milliseconds(200));
  metrics.ranks_lost(1);
  std::string text = registry.text();
  CHECK(has(text, "flotilla_epoch 7\n"));
  CHECK(has(text, "flotilla_ranks_alive 3\n"));
  CHECK(has(text, "flotilla_ranks_configured 4\n"));
  CHECK(has(text, "flotilla_degraded 1\n"));
  CHECK(has(text, "flotilla_rank_losses_total 1\n"));

  metrics.epoch_started(8, 4, 4, milliseconds(20));
  text = registry.text();
  CHECK(has(text, "flotilla_degraded 0\n"));
  CHECK(has(text, "flotilla_epochs_total 2\n"));
  CHECK(has(text, "flotilla_epoch_pause_seconds_count 2\n"));
}

TEST_CASE("EngineMetrics.CountsTheSmallEvents") {
  MetricsRegistry registry;
  EngineMetrics metrics(&registry);
  using std::chrono::microseconds;
  metrics.clock_waited(microseconds(70));
  metrics.exchange_finished(microseconds(300));
  metrics.tokens_sampled(5);
  metrics.preempted();
  metrics.preempted();
  metrics.resumed();
  metrics.cancelled();
  metrics.refused();
  metrics.drain_started();
  metrics.drain_finished(std::chrono::seconds(2));

  const std::string text = registry.text();
  CHECK(has(text, "flotilla_clock_wait_seconds_bucket{le=\"0.0001\"} 1\n"));
  CHECK(has(text, "flotilla_exchange_seconds_count 1\n"));
  CHECK(has(text, "vllm:generation_tokens_total 5\n"));
  CHECK(has(text, "vllm:num_preemptions_total 2\n"));
  CHECK(has(text, "fastdeploy:num_requests_preempted 1\n"));
  CHECK(has(text, "flotilla_sequences_cancelled_total 1\n"));
  CHECK(has(text, "flotilla_sequences_refused_total 1\n"));
  CHECK(has(text, "flotilla_draining 1\n"));
  CHECK(has(text, "flotilla_drain_seconds_sum 2\n"));
}

}  // namespace
}  // namespace flotilla
