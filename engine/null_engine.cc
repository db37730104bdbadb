#include "engine/null_engine.h"

#include <pthread.h>

#include <algorithm>
#include <map>
#include <thread>

#include "common/mutex.h"
#include "engine/scheduler/batcher.h"

namespace flotilla {
namespace {

using Clock = std::chrono::steady_clock;

class NullEngine final : public Engine {
 public:
  explicit NullEngine(NullEngineOptions options)
      : options_(std::move(options)),
        interval_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(1.0 / options_.tokens_per_second))),
        thread_([this] { run(); }) {}
  ~NullEngine() override { stop(); }

  Status submit(GenerationRequest request, TokenSink* sink) override {
    FLOTILLA_RETURN_IF_ERROR(check_request(request, options_.limits));
    {
      MutexLock lock(mutex_);
      if (stopping_ || draining_) return unavailable("this rank is draining");
      if (streams_.size() >= options_.max_waiting) return resource_exhausted("the queue is full");
      const size_t total = request.prompt.size() + request.sampling.max_tokens;
      Stream stream{.sink = sink,
                    .id = request.id,
                    .generation = request.generation,
                    .produced = static_cast<uint32_t>(request.produced.size())};
      stream.last = static_cast<uint32_t>(
          std::min<size_t>(total, static_cast<size_t>(options_.limits.max_model_len)) -
          request.prompt.size());
      stream.logprobs = request.sampling.logprobs >= 0;
      // Streams that begin together stay together: as in a step of a real engine, one wake-up
      // serves many.
      const auto now = Clock::now();
      const auto due = origin_ + (((now - origin_) / interval_) + 1) * interval_;
      streams_.emplace(std::pair(sink, request.id), stream);
      next_due_ = std::min(next_due_, due);
    }
    changed_.notify_one();
    return ok_status();
  }

  void cancel(TokenSink* sink, uint64_t id) override {
    MutexLock lock(mutex_);
    const auto it = streams_.find(std::pair(sink, id));
    if (it != streams_.end()) it->second.cancelled = true;
  }

  EngineLoad load() const override {
    MutexLock lock(mutex_);
    return {.running = static_cast<uint32_t>(streams_.size()), .draining = draining_};
  }
  EngineHealth health() const override { return {.state = EngineState::kServing, .detail = ""}; }
  EngineLimits limits() const override { return options_.limits; }

  void begin_drain() override {
    MutexLock lock(mutex_);
    draining_ = true;
    changed_.notify_all();
  }
  bool drained() const override {
    MutexLock lock(mutex_);
    return draining_ && streams_.empty();
  }
  bool wait_drained(Clock::time_point deadline) override {
    MutexLock lock(mutex_);
    return changed_.wait_until(lock, deadline, [&] { return draining_ && streams_.empty(); });
  }
  void stop() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Stream {
    TokenSink* sink;
    uint64_t id;
    uint64_t generation;
    uint32_t produced = 0;
    uint32_t last = 0;  // produced at the end
    bool logprobs = false;
    bool cancelled = false;
  };

  void run() {
    pthread_setname_np(pthread_self(), "null-engine");
    while (true) {
      std::map<TokenSink*, std::vector<TokenBatch>> batches;
      {
        MutexLock lock(mutex_);
        if (streams_.empty()) {
          next_due_ = Clock::time_point::max();
          changed_.notify_all();
          changed_.wait(lock, [&] { return stopping_ || !streams_.empty(); });
        }
        changed_.wait_until(lock, next_due_, [&] { return stopping_; });
        batches = tick();
        if (stopping_ && streams_.empty() && batches.empty()) return;
      }
      for (auto& [sink, list] : batches) sink->on_tokens(list);
    }
  }

  // One token of every stream; with stopping_ set, the end of every stream.
  std::map<TokenSink*, std::vector<TokenBatch>> tick() REQUIRES(mutex_) {
    const auto now = Clock::now();
    std::map<TokenSink*, std::vector<TokenBatch>> batches;
    for (auto it = streams_.begin(); it != streams_.end();) {
      Stream& s = it->second;
      TokenBatch b;
      b.id = s.id;
      b.generation = s.generation;
      b.first_index = s.produced;
      b.scheduled_at = b.produced_at = now;
      if (s.cancelled || stopping_) {
        b.finish = FinishReason::kCancelled;
      } else {
        b.tokens = {options_.text[s.produced++ % options_.text.size()]};
        if (s.logprobs) b.logprobs = {{.chosen = {b.tokens[0], 0.0f, 1}, .top = {}}};
        if (s.produced >= s.last) b.finish = FinishReason::kLength;
      }
      const bool ended = b.finish != FinishReason::kRunning;
      batches[s.sink].push_back(std::move(b));
      it = ended ? streams_.erase(it) : std::next(it);
    }
    next_due_ = origin_ + (((now - origin_) / interval_) + 1) * interval_;
    return batches;
  }

  const NullEngineOptions options_;
  const Clock::duration interval_;
  const Clock::time_point origin_ = Clock::now();
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::pair<TokenSink*, uint64_t>, Stream> streams_ GUARDED_BY(mutex_);
  Clock::time_point next_due_ GUARDED_BY(mutex_) = Clock::time_point::max();
  bool draining_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Engine> make_null_engine(NullEngineOptions options) {
  return std::make_unique<NullEngine>(std::move(options));
}

}  // namespace flotilla
