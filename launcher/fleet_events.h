// The seam between the two halves of the launcher: the supervisor, which owns the rank processes
// (main thread), and the step clock's server, which talks to them (a thread of its own). Either
// side compiles and is tested without the other. A process is named by rank *and* pid: an event
// about a process that is gone is ignored, never applied to its successor.
#pragma once

#include <sys/types.h>

#include <string>

#include "common/ids.h"

namespace flotilla {

// What the step clock tells the supervisor. Threads: any; calls post and return at once.
class FleetEvents {
 public:
  virtual ~FleetEvents() = default;

  // `stage` as in LoadProgress ("loading", "warming up"), `fraction` 0 … 1.
  virtual void on_progress(Rank rank, pid_t pid, std::string stage, double fraction) = 0;
  // The rank answers requests; `seconds` since its process started.
  virtual void on_serving(Rank rank, pid_t pid, double seconds) = 0;
  // No progress for --rank-timeout: the process is killed, then started again as after any other
  // death.
  virtual void on_hung(Rank rank, pid_t pid, std::string reason) = 0;
  // The hello was refused because a setting differs; `reason` names it and both values. The fleet
  // ends with kExitRefused: at once if it was never ready, else by a drain.
  virtual void on_refused(Rank rank, pid_t pid, std::string reason) = 0;
};

// What the supervisor tells the step clock. Called on the supervisor's thread; must not wait. The
// rank may be told to have exited before its connection is seen to close, or after.
class FleetListener {
 public:
  virtual ~FleetListener() = default;

  virtual void on_rank_started(Rank rank, pid_t pid) = 0;
  // `how`: "exit code 0", "signal 9 (Killed)".
  virtual void on_rank_exited(Rank rank, pid_t pid, const std::string& how) = 0;
  // The whole fleet drains from now on. A rank that joins later must be told so too.
  virtual void on_fleet_draining() = 0;
};

}  // namespace flotilla
