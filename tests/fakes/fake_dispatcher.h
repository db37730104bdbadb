// A Dispatcher without an engine: yields tokens from a script, step by step, when a test says so or
// on a thread of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "engine/dispatch/dispatcher.h"

namespace flotilla {

// What one sequence will produce. Ends by itself, or by max_tokens (kLength), or at a stop token of
// the request.
struct FakeScript {
  std::vector<TokenId> tokens = {};
  FinishReason finish = FinishReason::kStop;  // behind the last token
  TokenId stop_token = -1;                    // shown with kStop
  Status error = {};                          // with kError
  uint32_t cached_tokens = 0;
  bool endless = false;  // repeat `tokens` until max_tokens
};

class FakeDispatcher final : public Dispatcher {
 public:
  using Script = std::function<FakeScript(const GenerationRequest&)>;

  explicit FakeDispatcher(Script script) : script_(std::move(script)) {}
  ~FakeDispatcher() override { stop_stepping(); }

  // Knobs; set them before use or from the thread that steps.
  EngineLimits limits_value = {.max_model_len = 4096, .vocab_size = 300, .max_prompt_tokens = 4095};
  EngineHealth health_value = {.state = EngineState::kServing,
                               .degraded = false,
                               .seconds_without_progress = 0,
                               .detail = ""};
  std::atomic<bool> draining{false};
  // Called at each submit, from the second argument on counted from 0; an error refuses.
  std::function<Status(const GenerationRequest&, uint64_t index)> on_submit;
  // Tokens given per sequence and step, by step number; at least 1.
  std::function<uint32_t(uint64_t step)> tokens_per_step = [](uint64_t) { return 1u; };

  // One step: every live sequence gets its next tokens. False if there was none.
  bool step() {
    std::map<TokenSink*, std::vector<TokenBatch>> out;
    {
      std::lock_guard lock(mutex_);
      const uint32_t count = std::max(1u, tokens_per_step(steps_++));
      for (auto it = live_.begin(); it != live_.end();) {
        out[it->first.first].push_back(next_batch(it->second, count));
        it = it->second.finished ? live_.erase(it) : std::next(it);
      }
    }
    for (auto& [sink, batches] : out) sink->on_tokens(batches);
    return !out.empty();
  }
  void run_all() {
    while (step()) {
    }
  }

  // Steps on a thread, `pause` apart, until stop_stepping().
  void start_stepping(std::chrono::microseconds pause) {
    stepping_ = true;
    thread_ = std::thread([this, pause] {
      while (stepping_) {
        if (!step()) {
          std::unique_lock lock(mutex_);
          work_.wait(lock, [&] { return !live_.empty() || !stepping_; });
        } else if (pause.count() > 0) {
          std::this_thread::sleep_for(
              pause);  // the speed of the scripted engine, not a synchronisation
        }
      }
    });
  }
  void stop_stepping() {
    {
      std::lock_guard lock(mutex_);
      stepping_ = false;
    }
    work_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  StatusOr<Placement> submit(GenerationRequest request,
                             const DispatchOptions& options,
                             TokenSink* sink) override {
    std::lock_guard lock(mutex_);
    if (on_submit) {
      if (Status status = on_submit(request, submitted_.size()); !status.ok()) return status;
    }
    submitted_.push_back(request);
    ranks_.push_back(options.rank);
    Live live;
    live.script = script_(request);
    live.produced = static_cast<uint32_t>(request.produced.size());
    live.request = std::move(request);
    const uint64_t id = live.request.id;
    live_.emplace(std::make_pair(sink, id), std::move(live));
    work_.notify_all();
    const Rank rank = options.rank.value_or(Rank(0));
    return Placement{.prefill = rank, .decode = rank};
  }
  void cancel(TokenSink* sink, uint64_t id) override {
    std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
    if (const auto it = live_.find({sink, id}); it != live_.end()) it->second.cancelled = true;
  }
  EngineLoad load() const override {
    std::lock_guard lock(mutex_);
    return {.running = static_cast<uint32_t>(live_.size()),
            .blocks_used = live_.size(),
            .blocks_total = 256,
            .draining = draining};
  }
  EngineHealth health() const override {
    std::lock_guard lock(mutex_);
    return health_value;
  }
  void set_health(EngineHealth health) {
    std::lock_guard lock(mutex_);
    health_value = std::move(health);
  }
  EngineLimits limits() const override { return limits_value; }

  std::vector<GenerationRequest> submitted() const {
    std::lock_guard lock(mutex_);
    return submitted_;
  }
  std::vector<std::optional<Rank>> ranks() const {
    std::lock_guard lock(mutex_);
    return ranks_;
  }
  std::vector<uint64_t> cancelled() const {
    std::lock_guard lock(mutex_);
    return cancelled_;
  }
  size_t num_live() const {
    std::lock_guard lock(mutex_);
    return live_.size();
  }

  // What the fake says of any token.
  static float logprob_of(TokenId token) { return -0.25f * static_cast<float>(1 + token % 7); }
  static PositionLogprobs position_of(TokenId token, int32_t n) {
    PositionLogprobs p;
    p.chosen = {token, logprob_of(token), 1};
    for (int32_t k = 0; k < n; ++k) {
      p.top.push_back({(token + k) % 300, -0.25f * static_cast<float>(1 + k), k + 1});
    }
    return p;
  }

 private:
  struct Live {
    GenerationRequest request;
    FakeScript script;
    size_t next = 0;        // in script.tokens
    uint32_t produced = 0;  // tokens of the sequence so far, resumed ones included
    bool started = false, cancelled = false, finished = false;
  };

  static TokenBatch next_batch(Live& live, uint32_t count) {
    TokenBatch batch;
    const SamplingParams& sampling = live.request.sampling;
    batch.id = live.request.id;
    batch.generation = live.request.generation;
    batch.first_index = live.produced;
    batch.scheduled_at = batch.produced_at = std::chrono::steady_clock::now();
    if (!live.started) {
      batch.cached_tokens = live.script.cached_tokens;
      if (sampling.prompt_logprobs >= 0) {
        for (const TokenId token : live.request.prompt) {
          batch.prompt_logprobs.push_back(position_of(token, sampling.prompt_logprobs));
        }
        batch.prompt_logprobs.front() = {};
      }
      live.started = true;
    }
    const auto finish = [&](FinishReason reason) {
      batch.finish = reason;
      live.finished = true;
    };
    if (live.cancelled) {
      finish(FinishReason::kCancelled);
      return batch;
    }
    for (uint32_t i = 0; i < count && !live.finished; ++i) {
      if (live.next == live.script.tokens.size() && live.script.endless) live.next = 0;
      if (live.next == live.script.tokens.size()) {
        finish(live.script.finish);
        batch.stop_token = live.script.stop_token;
        batch.error = live.script.error;
        break;
      }
      const TokenId token = live.script.tokens[live.next++];
      const auto& stops = sampling.stop_token_ids;
      if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
        finish(FinishReason::kStop);
        batch.stop_token = token;
        break;
      }
      batch.tokens.push_back(token);
      if (sampling.logprobs >= 0) batch.logprobs.push_back(position_of(token, sampling.logprobs));
      if (++live.produced >= sampling.max_tokens) finish(FinishReason::kLength);
    }
    return batch;
  }

  const Script script_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::map<std::pair<TokenSink*, uint64_t>, Live> live_;
  std::vector<GenerationRequest> submitted_;
  std::vector<std::optional<Rank>> ranks_;
  std::vector<uint64_t> cancelled_;
  uint64_t steps_ = 0;
  std::atomic<bool> stepping_{false};
  std::thread thread_;
};

}  // namespace flotilla
