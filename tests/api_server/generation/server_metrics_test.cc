#include "api_server/generation/server_metrics.h"

#include <doctest/doctest.h>

namespace flotilla {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("ServerMetrics.CountsASequencesTimesUnderBothNames") {
  MetricsRegistry registry;
  ServerMetrics metrics(&registry, 4096);
  const SequenceTimes::Time start{seconds(100)};
  metrics.request_accepted(2, 128);
  metrics.first_token(milliseconds(300));
  metrics.next_token(milliseconds(20));
  metrics.sequence_finished(FinishReason::kStop,
                            10,
                            5,
                            {.arrival = start,
                             .scheduled = start + milliseconds(100),
                             .first_token = start + milliseconds(300),
                             .last_token = start + milliseconds(1300),
                             .finished = start + milliseconds(1400)});

  const std::string text = registry.text();
  CHECK(has(text, "fastdeploy:requests_number_total 1\n"));
  CHECK(has(text, "vllm:request_success_total{finished_reason=\"stop\"} 1\n"));
  CHECK(has(text, "vllm:time_to_first_token_seconds_sum 0.3\n"));
  CHECK(has(text, "vllm:inter_token_latency_seconds_sum 0.02\n"));
  CHECK(has(text, "fastdeploy:e2e_request_latency_seconds_sum 1.4\n"));
  CHECK(has(text, "fastdeploy:request_queue_time_seconds_sum 0.1\n"));
  CHECK(has(text, "fastdeploy:request_prefill_time_seconds_sum 0.2\n"));
  CHECK(has(text, "fastdeploy:request_decode_time_seconds_sum 1\n"));
  CHECK(has(text, "fastdeploy:request_inference_time_seconds_sum 1.2\n"));
  CHECK(has(text, "vllm:request_time_per_output_token_seconds_sum 0.25\n"));
  CHECK(has(text, "fastdeploy:request_prompt_tokens_sum 10\n"));
  CHECK(has(text, "fastdeploy:request_generation_tokens_sum 5\n"));
  CHECK(has(text, "fastdeploy:request_params_max_tokens_sum 128\n"));
  CHECK(has(text, "vllm:request_params_n_sum 2\n"));
  CHECK(has(text, "fastdeploy:first_token_latency 0.3\n"));
}

TEST_CASE("ServerMetrics.LeavesOutTimesThatNobodyKnows") {
  MetricsRegistry registry;
  ServerMetrics metrics(&registry, 4096);
  const SequenceTimes::Time start{seconds(100)};
  metrics.sequence_finished(
      FinishReason::kCancelled, 10, 0, {.arrival = start, .finished = start + seconds(1)});
  const std::string text = registry.text();
  CHECK(has(text, "fastdeploy:e2e_request_latency_seconds_count 1\n"));
  CHECK(has(text, "fastdeploy:request_queue_time_seconds_count 0\n"));
  CHECK(has(text, "fastdeploy:request_decode_time_seconds_count 0\n"));
  CHECK(has(text, "fastdeploy:request_success_total{finished_reason=\"abort\"} 1\n"));
}

TEST_CASE("ServerMetrics.UsesTheLongFirstTokenBucketsOfVllm") {
  MetricsRegistry registry;
  ServerMetrics metrics(&registry, 4096);
  metrics.first_token(seconds(100));
  const std::string text = registry.text();
  CHECK(has(text, "fastdeploy:time_to_first_token_seconds_bucket{le=\"80\"} 0\n"));
  CHECK(has(text, "fastdeploy:time_to_first_token_seconds_bucket{le=\"160\"} 1\n"));
}

TEST_CASE("ServerMetrics.CountsHttpByMethodRouteAndStatus") {
  MetricsRegistry registry;
  ServerMetrics metrics(&registry, 4096);
  metrics.http_finished("POST", "/v1/completions", 200, milliseconds(20));
  metrics.http_finished("POST", "/v1/completions", 200, milliseconds(20));
  metrics.http_finished("POST", "/v1/completions", 400, milliseconds(20));
  metrics.request_refused(429);
  metrics.client_lost();
  metrics.in_flight(7);
  const std::string text = registry.text();
  CHECK(
      has(text,
          "http_requests_total{method=\"POST\",path=\"/v1/completions\",status_code=\"200\"} 2\n"));
  CHECK(
      has(text,
          "http_requests_total{method=\"POST\",path=\"/v1/completions\",status_code=\"400\"} 1\n"));
  CHECK(has(text,
            "http_request_duration_seconds_count{method=\"POST\",path=\"/v1/completions\"} 3\n"));
  CHECK(has(text, "flotilla_requests_refused_total{status_code=\"429\"} 1\n"));
  CHECK(has(text, "flotilla_clients_lost_total 1\n"));
  CHECK(has(text, "flotilla_generations_in_flight 7\n"));
}

}  // namespace
}  // namespace flotilla
