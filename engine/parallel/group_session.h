// This rank's side of the step clock's protocol: which epoch it is in, which step comes next, what has to end before a new group can begin.
// No thread and no socket of its own: messages in, messages out, and a few verdicts for the engine's loop.
// Threads: the engine thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/ids.h"
#include "common/wire/clock.pb.h"
#include "engine/parallel/mesh_exchange.h"

namespace flotilla {

class GroupSession {
 public:
  using Clock = std::chrono::steady_clock;
  using Send = std::function<void(const wire::ToClock&)>;

  GroupSession(Rank self, Send send) : self_(self), send_(std::move(send)) {}

  // ---- from the clock ----
  void on_group(const wire::Group& group, Clock::time_point now);
  void on_suspend(const wire::Suspend& suspend, Clock::time_point now);
  // The step to run now, or nullopt for a message of an old epoch.
  std::optional<StepGrant> on_go(const wire::Go& go);

  // ---- steps ----
  // Steps may be wanted and run.
  bool running() const { return phase_ == Phase::kRunning; }
  // Says what this rank would run in the next step; again only if there is something new to say. True while a Go is awaited.
  void want(uint32_t prefill_tokens, uint32_t decode_tokens, Clock::time_point now);
  size_t self_index() const { return self_index_; }
  // Of the last granted step: from its want with work to its go.
  std::optional<std::chrono::nanoseconds> take_clock_wait() { return std::exchange(clock_wait_, std::nullopt); }
  // A step failed for a reason that the clock has not told yet; it is told if no new epoch comes soon. When that is due: deadline().
  void on_step_failed(const Status& status, Clock::time_point now);
  Clock::time_point deadline() const;
  void on_deadline(Clock::time_point now);

  // ---- between epochs ----
  // Steps of epochs before this one are void: cancel the exchange. Grows only.
  Epoch valid_from() const { return valid_from_; }
  // A group waits to be joined, once all submitted steps are over and rolled back.
  bool wants_to_join() const { return phase_ == Phase::kStopping && target_.has_value(); }
  // The epoch is over: nothing may be submitted.
  bool stopped() const { return phase_ == Phase::kStopping || phase_ == Phase::kSuspended; }
  // Takes the group to join; on_joined() is due when that has been tried.
  ExchangeGroup begin_join();
  bool joining() const { return phase_ == Phase::kJoining; }
  void on_joined(const Status& status, Clock::time_point now);

  Epoch epoch() const { return epoch_; }
  uint32_t num_members() const { return num_members_; }
  uint32_t num_ranks() const { return num_ranks_; }
  bool suspended() const { return phase_ == Phase::kSuspended; }
  // How long steps stood still for the current epoch.
  std::chrono::nanoseconds pause() const { return pause_; }

 private:
  enum class Phase {
    kWaiting,    // no group yet
    kRunning,
    kStopping,   // a new group is known; steps of the old one finish or are void
    kJoining,    // experts are placed and links made
    kSuspended,  // no group until a lost rank is back
  };

  void stop(Clock::time_point now);
  void send_broken(const std::string& reason);

  const Rank self_;
  const Send send_;
  Phase phase_ = Phase::kWaiting;
  Epoch epoch_;        // joined last
  Epoch valid_from_;
  std::optional<wire::Group> target_;
  wire::Group joining_;
  size_t self_index_ = 0;
  uint32_t num_members_ = 0, num_ranks_ = 0;

  StepIndex next_step_;
  struct Wanted {
    uint32_t prefill, decode;
    Clock::time_point since;  // of the first want with work
  };
  std::optional<Wanted> wanted_;
  std::optional<std::chrono::nanoseconds> clock_wait_;
  std::optional<Clock::time_point> broken_at_;
  std::string broken_reason_;
  std::optional<Clock::time_point> stopped_at_;
  std::chrono::nanoseconds pause_{0};
};

}  // namespace flotilla
