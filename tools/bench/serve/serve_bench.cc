#include "tools/bench/serve/serve_bench.h"

#include <httplib.h>
#include <simdjson.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "common/json.h"
#include "common/mutex.h"

namespace flotilla::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::minutes kPatience{30};

double milliseconds(Clock::duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

// One streamed request.
struct Outcome {
  std::string error;  // empty: completed
  Clock::time_point sent, first, last;
  std::vector<double> gaps_ms;
  int64_t prompt_tokens = 0, generated_tokens = 0;
};

std::string body_of(const ServeBenchOptions& o, std::mt19937_64& random) {
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.field("model", o.model);
  json.key("prompt");
  if (o.prompt_text.empty()) {
    json.begin_array();
    for (int32_t i = 0; i < o.prompt; ++i)
      json.value(static_cast<int64_t>(random() % static_cast<uint64_t>(o.vocab)));
    json.end_array();
  } else {
    json.value(o.prompt_text);
  }
  json.field("max_tokens", o.gen);
  json.field("temperature", o.temperature);
  json.field("ignore_eos", true);
  json.field("return_token_ids", true);
  json.field("stream", true);
  json.key("stream_options");
  json.raw(R"({"include_usage":true})");
  json.end_object();
  return body;
}

// Reads events from a stream of bytes as they come.
class Events {
 public:
  explicit Events(Outcome* outcome) : outcome_(outcome) {}

  void feed(std::string_view bytes) {
    const auto now = Clock::now();
    buffer_.append(bytes);
    size_t end;
    while ((end = buffer_.find("\n\n")) != buffer_.npos) {
      std::string_view event = std::string_view(buffer_).substr(0, end);
      if (event.starts_with("data: ") && event != "data: [DONE]") take(event.substr(6), now);
      buffer_.erase(0, end + 2);
    }
  }

 private:
  void take(std::string_view json, Clock::time_point now) {
    simdjson::dom::element root;
    if (parser_.parse(simdjson::padded_string(json)).get(root)) {
      outcome_->error = "an event is no JSON";
      return;
    }
    std::string_view message;
    if (!root["error"]["message"].get(message)) {
      outcome_->error = message;
      return;
    }
    int64_t n;
    if (!root["usage"]["prompt_tokens"].get(n)) outcome_->prompt_tokens = n;
    if (!root["usage"]["completion_tokens"].get(n)) outcome_->generated_tokens = n;
    simdjson::dom::array ids;
    std::string_view text;
    const bool has_tokens = (!root["choices"].at(0)["token_ids"].get(ids) && ids.size() > 0) ||
                            (!root["choices"].at(0)["text"].get(text) && !text.empty());
    if (!has_tokens) return;
    if (outcome_->first == Clock::time_point()) {
      outcome_->first = now;
    } else {
      outcome_->gaps_ms.push_back(milliseconds(now - outcome_->last));
    }
    outcome_->last = now;
  }

  Outcome* outcome_;
  std::string buffer_;
  simdjson::dom::parser parser_;
};

Outcome run_one(httplib::Client& client, const ServeBenchOptions& o, const std::string& body) {
  Outcome outcome;
  Events events(&outcome);
  httplib::Request request;
  request.method = "POST";
  request.path = "/v1/completions";
  request.body = body;
  request.set_header("Content-Type", "application/json");
  if (!o.api_key.empty()) request.set_header("Authorization", "Bearer " + o.api_key);
  std::string head;  // of an answer that is no event stream
  request.content_receiver = [&](const char* data, size_t n, uint64_t, uint64_t) {
    if (head.size() < 512) head.append(data, std::min<size_t>(n, 512 - head.size()));
    events.feed({data, n});
    return true;
  };
  outcome.sent = Clock::now();
  const httplib::Result result = client.send(request);
  if (!result) {
    outcome.error = httplib::to_string(result.error());
  } else if (result->status != 200) {
    outcome.error = "HTTP " + std::to_string(result->status) + " " + head;
  } else if (outcome.error.empty() && outcome.first == Clock::time_point()) {
    outcome.error = "no token came";
  }
  return outcome;
}

}  // namespace

double percentile(const std::vector<double>& sorted, double p) {
  if (sorted.empty()) return 0.0;
  const double at = p / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

StatusOr<ServeBenchResult> bench_serve(const ServeBenchOptions& o,
                                       const std::function<void(int32_t)>& progress) {
  std::mt19937_64 random(o.seed);
  std::vector<std::string> bodies;
  std::vector<Clock::duration> due;  // open loop: when each is sent
  double at = 0.0;
  for (int32_t i = 0; i < o.requests; ++i) {
    bodies.push_back(body_of(o, random));
    if (o.rate > 0) at += std::exponential_distribution<double>(o.rate)(random);
    due.push_back(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(at)));
  }
  Mutex mutex;
  ServeBenchResult result;
  std::atomic<int32_t> next = 0;
  const auto begin = Clock::now();
  const auto worker = [&](int32_t w) {
    httplib::Client client(o.urls[static_cast<size_t>(w) % o.urls.size()]);
    client.set_keep_alive(true);
    client.set_tcp_nodelay(true);
    client.set_read_timeout(kPatience);
    for (int32_t i = next++; i < o.requests; i = next++) {
      std::this_thread::sleep_until(begin + due[static_cast<size_t>(i)]);
      const Outcome outcome = run_one(client, o, bodies[static_cast<size_t>(i)]);
      MutexLock lock(mutex);
      if (!outcome.error.empty()) {
        ++result.failed;
        if (result.errors.size() < 5) result.errors.push_back(outcome.error);
      } else {
        ++result.completed;
        result.prompt_tokens += outcome.prompt_tokens;
        result.generated_tokens += outcome.generated_tokens;
        result.ttft_ms.push_back(milliseconds(outcome.first - outcome.sent));
        result.e2e_ms.push_back(milliseconds(outcome.last - outcome.sent));
        result.itl_ms.insert(result.itl_ms.end(), outcome.gaps_ms.begin(), outcome.gaps_ms.end());
        if (outcome.generated_tokens > 1) {
          result.tpot_ms.push_back(milliseconds(outcome.last - outcome.first) /
                                   static_cast<double>(outcome.generated_tokens - 1));
        }
      }
      progress(result.completed + result.failed);
    }
  };
  std::vector<std::thread> threads;
  for (int32_t w = 0; w < std::min(o.concurrency, o.requests); ++w) threads.emplace_back(worker, w);
  for (std::thread& thread : threads) thread.join();
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  for (auto* values : {&result.ttft_ms, &result.itl_ms, &result.tpot_ms, &result.e2e_ms})
    std::sort(values->begin(), values->end());
  return result;
}

}  // namespace flotilla::bench
