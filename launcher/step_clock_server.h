// The step clock on a Unix socket, in a thread of its own: reads frames, lets StepClock decide,
// writes frames. The launcher has one.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "launcher/fleet_events.h"
#include "launcher/step_clock.h"

namespace flotilla {

// Threads: members may be called from any thread.
class StepClockServer final : public FleetListener {
 public:
  // Listens on `socket_path` (in a folder that only this user can enter). `events` is called from
  // the clock's thread and outlives the server.
  static StatusOr<std::unique_ptr<StepClockServer>> start(const std::string& socket_path,
                                                          const StepClockOptions& options,
                                                          FleetEvents& events);
  ~StepClockServer() override;

  void on_rank_started(Rank rank, pid_t pid) override;
  void on_rank_exited(Rank rank, pid_t pid, const std::string& how) override;
  void on_fleet_draining() override;

 private:
  class Impl;
  explicit StepClockServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla
