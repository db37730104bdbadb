// The engine thread's loop: one place to wait for requests, results of the device and the step
// clock. Threads: run() is the engine thread; the rest says who may call it.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <thread>

#include "common/mutex.h"
#include "engine/metrics.h"
#include "engine/parallel/clock_client.h"
#include "engine/parallel/group_session.h"
#include "engine/rank_inbox.h"
#include "engine/rank_parts.h"
#include "engine/scheduler/batcher.h"

namespace flotilla {

class RankLoop {
 public:
  // `mesh` and `clock` may be null. `metrics` too.
  RankLoop(RankEngineOptions options,
           RankSetup setup,
           std::unique_ptr<MeshExchange> mesh,
           std::unique_ptr<ClockClient> clock,
           EngineMetrics* metrics);
  ~RankLoop();

  void run();

  // Threads: any.
  RankInbox& inbox() { return inbox_; }
  EngineLoad load() const;
  EngineHealth health() const;
  Status failure() const;
  bool wait_until(std::chrono::steady_clock::time_point deadline, bool (*reached)(const RankLoop&));
  bool started() const { return state_ != EngineState::kStarting; }
  bool drained() const { return drained_; }
  bool failed() const { return state_ == EngineState::kFailed; }
  bool ended() const { return ended_; }

 private:
  using Clock = std::chrono::steady_clock;

  void say_hello();
  void start_loading();
  void take_loaded();
  void wait_for_events();
  void read_clock();
  void on_clock_message(const wire::FromClock& message);
  void take_inbox();
  void collect();
  void leave_epoch();
  void begin_join();
  void finish_join();
  void advance();
  void submit(StepPlan plan, StepGrant grant);
  void deliver();
  void progress_drain();
  void heartbeat();
  void announce();
  void fail(const Status& status);
  void notify();
  void send(const wire::ToClock& message);
  bool in_group() const { return session_ != nullptr; }
  bool has_work() const { return !batcher_.empty(); }

  const RankEngineOptions options_;
  RankSetup setup_;
  std::unique_ptr<MeshExchange> mesh_;
  std::unique_ptr<ClockClient> clock_;
  EngineMetrics* const metrics_;
  RankInbox inbox_;
  Batcher batcher_;
  std::unique_ptr<GroupSession> session_;  // null: this rank steps alone

  // The loader thread's outcome, taken by the engine thread.
  struct Loading {
    Mutex mutex;
    std::optional<StatusOr<RankParts>> outcome GUARDED_BY(mutex);
    std::atomic<int> percent{0};
    std::atomic<bool> done{false};
    std::thread thread;
  };
  Loading loading_;
  int percent_told_ = -1;
  std::optional<RankParts> parts_;

  // The join that the device thread works on.
  struct Joining {
    Mutex mutex;
    std::optional<Status> outcome GUARDED_BY(mutex);
    std::atomic<uint64_t> progress{0};
  };
  Joining join_;

  std::optional<StepPlan> pending_;  // planned and not granted yet
  struct Submitted {
    bool has_work;
    uint32_t prefill, decode, sequences;
  };
  std::deque<Submitted> submitted_;
  bool step_failed_ = false;  // results of this epoch count no more
  StepIndex local_step_;

  bool stopping_ = false;
  bool front_is_up_ = false;
  bool announced_ = false;
  bool may_leave_unloaded_ = false;  // it was told to drain itself, not as part of the fleet only
  bool drain_told_ = false;
  bool drain_finished_told_ = false;
  std::optional<Clock::time_point> drain_begun_;
  std::chrono::milliseconds heartbeat_every_{5000};
  Clock::time_point next_heartbeat_ = Clock::now();
  Clock::time_point next_expiry_ = Clock::time_point::max();

  // Seen by other threads.
  mutable Mutex mutex_;
  CondVar changed_;
  EngineLoad load_ GUARDED_BY(mutex_);
  std::string detail_ GUARDED_BY(mutex_);
  Status failure_ GUARDED_BY(mutex_);
  std::atomic<EngineState> state_{EngineState::kStarting};
  std::atomic<bool> degraded_{false};
  std::atomic<bool> drained_{false};
  std::atomic<bool> ended_{false};  // run() is over
  std::atomic<Clock::rep>
      last_progress_;  // time of the last step or of the last moment without work
  std::atomic<bool> busy_{false};
};

}  // namespace flotilla
