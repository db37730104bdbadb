#include "api_server/generation/server_metrics.h"

#include <algorithm>

namespace flotilla {
namespace {

// vLLM's buckets (vllm/v1/metrics/loggers.py), with finer ones for fast decoding.
const std::vector<double> kFirstTokenBuckets = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                                0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                                20,    40,    80,   160,  640,  2560};
const std::vector<double> kPerTokenBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                              0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5,
                                              5,     7.5,    10,    20,   40,    80};
const std::vector<double> kRequestBuckets = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                             30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kHttpBuckets = {0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60};

bool known(SequenceTimes::Time t) { return t != SequenceTimes::Time{}; }

void observe_between(const Histogram& histogram, SequenceTimes::Time from, SequenceTimes::Time to) {
  if (!known(from) || !known(to)) return;
  histogram.observe(std::max(0.0, ServerMetrics::Seconds(to - from).count()));
}

}  // namespace

ServerMetrics::ServerMetrics(MetricsRegistry* registry, int64_t max_model_len)
    : registry_(registry) {
  MetricsRegistry& r = *registry;
  requests_ = r.counter(
      {"fastdeploy:requests_number_total", "Generation requests that passed the checks."});
  const auto finished = [&](const char* reason) {
    return r.counter({"fastdeploy:request_success_total",
                      "Sequences that ended, by reason.",
                      {"vllm:request_success_total"}},
                     {{"finished_reason", reason}});
  };
  finished_stop_ = finished("stop");
  finished_length_ = finished("length");
  finished_abort_ = finished("abort");
  finished_error_ = finished("error");
  clients_lost_ = r.counter(
      {"flotilla_clients_lost_total", "Clients that went away before their answer was complete."});

  ttft_ = r.histogram({"fastdeploy:time_to_first_token_seconds",
                       "From a request's arrival to its first token.",
                       {"vllm:time_to_first_token_seconds"}},
                      kFirstTokenBuckets);
  inter_token_ =
      r.histogram({"fastdeploy:time_per_output_token_seconds",
                   "From one token of a sequence to the next.",
                   {"vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"}},
                  kPerTokenBuckets);
  time_per_output_token_ = r.histogram({"flotilla_request_time_per_output_token_seconds",
                                        "Mean time per token of a sequence, without the first.",
                                        {"vllm:request_time_per_output_token_seconds"}},
                                       kPerTokenBuckets);
  e2e_ = r.histogram({"fastdeploy:e2e_request_latency_seconds",
                      "From a request's arrival to the end of a sequence.",
                      {"vllm:e2e_request_latency_seconds"}},
                     kRequestBuckets);
  inference_ = r.histogram({"fastdeploy:request_inference_time_seconds",
                            "From a sequence's first step to its last token.",
                            {"vllm:request_inference_time_seconds"}},
                           kRequestBuckets);
  queue_ = r.histogram({"fastdeploy:request_queue_time_seconds",
                        "From a request's arrival to a sequence's first step.",
                        {"vllm:request_queue_time_seconds"}},
                       kRequestBuckets);
  prefill_ = r.histogram({"fastdeploy:request_prefill_time_seconds",
                          "From a sequence's first step to its first token.",
                          {"vllm:request_prefill_time_seconds"}},
                         kRequestBuckets);
  decode_ = r.histogram({"fastdeploy:request_decode_time_seconds",
                         "From a sequence's first token to its last.",
                         {"vllm:request_decode_time_seconds"}},
                        kRequestBuckets);

  const std::vector<double> tokens = one_two_five_buckets(static_cast<double>(max_model_len));
  prompt_tokens_ = r.histogram({"fastdeploy:request_prompt_tokens",
                                "Tokens of a sequence's prompt.",
                                {"vllm:request_prompt_tokens"}},
                               tokens);
  generation_tokens_ = r.histogram({"fastdeploy:request_generation_tokens",
                                    "Tokens that a sequence produced.",
                                    {"vllm:request_generation_tokens"}},
                                   tokens);
  params_max_tokens_ = r.histogram({"fastdeploy:request_params_max_tokens",
                                    "Most tokens that a request lets a choice have.",
                                    {"vllm:request_params_max_tokens"}},
                                   tokens);
  params_n_ = r.histogram(
      {"flotilla_request_params_n", "Choices asked for by a request.", {"vllm:request_params_n"}},
      {1, 2, 5, 10, 20});
  first_token_latency_ =
      r.gauge({"fastdeploy:first_token_latency",
               "Seconds to the first token of the newest sequence that has one."});
  infer_latency_ = r.gauge(
      {"fastdeploy:infer_latency", "Seconds between the two newest tokens of some sequence."});
  in_flight_ = r.gauge(
      {"flotilla_generations_in_flight", "Generation requests that are being served or queued."});
}

void ServerMetrics::request_accepted(uint32_t n, uint32_t max_tokens) {
  requests_.add();
  params_n_.observe(n);
  params_max_tokens_.observe(max_tokens);
}

void ServerMetrics::request_refused(int http_status) {
  MutexLock lock(mutex_);
  auto it = refused_.find(http_status);
  if (it == refused_.end()) {
    const Counter counter =
        registry_->counter({"flotilla_requests_refused_total",
                            "Generation requests turned away before an engine saw them."},
                           {{"status_code", std::to_string(http_status)}});
    it = refused_.emplace(http_status, counter).first;
  }
  it->second.add();
}

void ServerMetrics::first_token(Seconds since_arrival) {
  ttft_.observe(since_arrival.count());
  first_token_latency_.set(since_arrival.count());
}

void ServerMetrics::next_token(Seconds since_last) {
  inter_token_.observe(since_last.count());
  infer_latency_.set(since_last.count());
}

void ServerMetrics::sequence_finished(FinishReason reason,
                                      uint64_t prompt_tokens,
                                      uint64_t generated_tokens,
                                      const SequenceTimes& times) {
  switch (reason) {
    case FinishReason::kStop:
      finished_stop_.add();
      break;
    case FinishReason::kLength:
      finished_length_.add();
      break;
    case FinishReason::kError:
      finished_error_.add();
      break;
    default:
      finished_abort_.add();
  }
  prompt_tokens_.observe(static_cast<double>(prompt_tokens));
  generation_tokens_.observe(static_cast<double>(generated_tokens));
  observe_between(e2e_, times.arrival, times.finished);
  observe_between(queue_, times.arrival, times.scheduled);
  observe_between(prefill_, times.scheduled, times.first_token);
  observe_between(decode_, times.first_token, times.last_token);
  observe_between(inference_, times.scheduled, times.last_token);
  if (generated_tokens > 1 && known(times.first_token) && known(times.last_token)) {
    const Seconds decoding = times.last_token - times.first_token;
    time_per_output_token_.observe(decoding.count() / static_cast<double>(generated_tokens - 1));
  }
}

void ServerMetrics::client_lost() { clients_lost_.add(); }

void ServerMetrics::http_finished(std::string_view method,
                                  std::string_view route,
                                  int status,
                                  Seconds duration) {
  HttpSeries series;
  {
    MutexLock lock(mutex_);
    const auto key = std::make_tuple(method, route, status);
    auto it = http_.find(key);
    if (it == http_.end()) {
      const MetricLabels where = {{"method", std::string(method)}, {"path", std::string(route)}};
      MetricLabels outcome = where;
      outcome.emplace_back("status_code", std::to_string(status));
      series.requests =
          registry_->counter({"http_requests_total", "HTTP requests answered."}, outcome);
      series.duration = registry_->histogram(
          {"http_request_duration_seconds", "From the head of an HTTP request to the last byte."},
          kHttpBuckets,
          where);
      http_.emplace(std::make_tuple(std::string(method), std::string(route), status), series);
    } else {
      series = it->second;
    }
  }
  series.requests.add();
  series.duration.observe(duration.count());
}

void ServerMetrics::in_flight(int64_t now) { in_flight_.set(static_cast<double>(now)); }

}  // namespace flotilla
