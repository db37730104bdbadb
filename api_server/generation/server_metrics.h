// What the HTTP front counts: requests as their clients see them. Verbs only; the names are in
// metrics.cc and in docs/metrics.md. What the engine does is counted in engine/metrics.h. Threads:
// any. All times are differences of one monotonic clock of this process.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "common/metrics.h"
#include "common/mutex.h"
#include "engine/request.h"

namespace flotilla {

// One sequence from its arrival to its end. A time that is not known stays at the clock's epoch:
// what needs it is not counted.
struct SequenceTimes {
  using Time = std::chrono::steady_clock::time_point;
  Time arrival{};      // its request was read
  Time scheduled{};    // the first step that worked on it was planned
  Time first_token{};  // its first token was produced
  Time last_token{};   // its newest token was produced
  Time finished{};     // its last batch reached the front
};

class ServerMetrics {
 public:
  using Seconds = std::chrono::duration<double>;

  // `max_model_len` bounds the histograms of token counts.
  ServerMetrics(MetricsRegistry* registry, int64_t max_model_len);

  // A request was read, checked and found good; it asks for `n` choices of `max_tokens` each.
  void request_accepted(uint32_t n, uint32_t max_tokens);
  // A request was turned away with this HTTP status before it reached an engine.
  void request_refused(int http_status);
  void first_token(Seconds since_arrival);
  void next_token(Seconds since_last);
  void sequence_finished(FinishReason reason,
                         uint64_t prompt_tokens,
                         uint64_t generated_tokens,
                         const SequenceTimes& times);
  // The client went away, or did not read, before its answer was complete.
  void client_lost();

  // `route` is the matched route's pattern or "unmatched": never what the client sent. `duration`
  // ends with the last byte.
  void http_finished(std::string_view method, std::string_view route, int status, Seconds duration);
  // Generations that hold a place of --max-concurrency.
  void in_flight(int64_t now);

 private:
  MetricsRegistry* registry_;
  Counter requests_, clients_lost_;
  Counter finished_stop_, finished_length_, finished_abort_, finished_error_;
  Histogram ttft_, inter_token_, time_per_output_token_, e2e_, inference_, queue_, prefill_,
      decode_;
  Histogram prompt_tokens_, generation_tokens_, params_max_tokens_, params_n_;
  Gauge first_token_latency_, infer_latency_, in_flight_;

  struct HttpSeries {
    Counter requests;
    Histogram duration;
  };
  Mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, HttpSeries, std::less<>> http_
      GUARDED_BY(mutex_);
  std::map<int, Counter> refused_ GUARDED_BY(mutex_);
};

}  // namespace flotilla
