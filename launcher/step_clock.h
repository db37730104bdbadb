// The step clock's rules: who is in the group, which step runs next, who is dead. No sockets, no
// threads, no time of its own: messages and events in, messages and verdicts out (ARCHITECTURE.md,
// "The step clock").
//
// A group lives for one epoch. In an epoch the members run steps 0, 1, 2 …: a step is granted when
// all members have said what they want in it and at least one wants something. An epoch ends when a
// member dies, leaves, breaks or joins; whatever ran in it is void, unless the end is orderly: then
// the steps already granted are finished first.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/wire/clock.pb.h"
#include "launcher/rank_loss.h"

namespace flotilla {

struct StepClockOptions {
  int32_t num_ranks = 1;
  OnRankLoss on_rank_loss = OnRankLoss::kContinue;
  std::chrono::milliseconds rank_timeout{20'000};
};

using ConnectionId = uint64_t;

// Where the clock's verdicts go. Called from within StepClock's members; must not call back.
class StepClockOutput {
 public:
  virtual ~StepClockOutput() = default;
  virtual void send(ConnectionId connection, const wire::FromClock& message) = 0;
  // Nothing more is read from or sent to the connection.
  virtual void close(ConnectionId connection) = 0;
  virtual void progress(Rank rank, int64_t pid, const std::string& stage, double fraction) = 0;
  virtual void serving(Rank rank, int64_t pid, double seconds) = 0;
  virtual void hung(Rank rank, int64_t pid, const std::string& reason) = 0;
  virtual void refused(Rank rank, int64_t pid, const std::string& reason) = 0;
};

class StepClock {
 public:
  using Clock = std::chrono::steady_clock;

  StepClock(const StepClockOptions& options, StepClockOutput& output);

  void on_message(ConnectionId connection, const wire::ToClock& message, Clock::time_point now);
  // End of file, error, or a malformed message.
  void on_disconnect(ConnectionId connection);
  void on_process_exit(Rank rank, int64_t pid);
  void on_fleet_draining();
  // Looks for ranks without progress. Call at next_deadline().
  void on_timer(Clock::time_point now);
  // When on_timer() could have something to do; nullopt while no rank is connected.
  std::optional<Clock::time_point> next_deadline() const;

  // For status and tests.
  Epoch epoch() const { return epoch_; }
  StepIndex step() const { return step_; }
  std::vector<Rank> members() const { return members_; }
  bool running() const { return phase_ == Phase::kRunning; }

 private:
  struct Wants {
    uint32_t prefill = 0, decode = 0;
  };
  struct RankState {
    ConnectionId connection = 0;
    wire::Hello hello;
    bool loaded = false;
    uint64_t spare_bytes = 0;
    bool draining = false;
    bool finished = false;  // drained: could leave
    bool leaving = false;   // no member any more; may go when the next epoch runs
    bool released = false;  // was told to go
    Epoch joined;
    std::optional<Wants> want;
    Clock::time_point last_heard;
    Clock::time_point last_progress;
    uint64_t progress = 0;
    wire::Heartbeat::State state = wire::Heartbeat::IDLE;
  };
  enum class Phase {
    kWaiting,  // not everybody was there yet
    kForming,  // a Group is out, not all have joined
    kRunning,
    kSuspended,  // a lost rank is waited for
  };

  RankState* find(ConnectionId connection);
  bool has_steps() const;
  void on_hello(ConnectionId connection, const wire::Hello& hello, Clock::time_point now);
  void on_draining(RankState& rank, bool finished);
  void on_broken(RankState& rank, const wire::Broken& broken);
  void remove(int32_t rank);
  std::optional<std::string> difference(const wire::Hello& hello) const;

  // Brings the group in line with who is there: a new epoch, a suspension, or nothing.
  void regroup(bool orderly);
  bool memory_allows(const std::vector<Rank>& candidates) const;
  void start_epoch(std::vector<Rank> members, bool orderly);
  void suspend(const std::string& reason);
  void maybe_run();
  void maybe_grant();
  void maybe_release_leavers();
  bool member(int32_t rank) const;
  void send(int32_t rank, const wire::FromClock& message);

  const StepClockOptions options_;
  StepClockOutput& output_;
  std::map<int32_t, RankState> ranks_;     // connected and accepted, by rank
  std::vector<wire::Setting> must_match_;  // of the first rank accepted while none was there
  Phase phase_ = Phase::kWaiting;
  bool formed_once_ = false;
  bool fleet_draining_ = false;
  Epoch epoch_;
  StepIndex step_;
  std::vector<Rank> members_;
};

}  // namespace flotilla
