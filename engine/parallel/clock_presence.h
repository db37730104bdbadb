// A rank that takes part in no steps (an engine without a model) in the eyes of the step clock: it
// says hello, serves, and lives. Threads: its own; start and destroy on any one thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/fd.h"
#include "common/ids.h"
#include "common/status.h"
#include "common/wire/clock.pb.h"
#include "engine/parallel/clock_client.h"

namespace flotilla {

struct ClockPresenceOptions {
  std::string clock_socket;
  Rank rank;
  std::chrono::steady_clock::time_point process_start;
  std::function<void()> on_fleet_draining;             // on the presence's thread
  std::function<void(const std::string& why)> on_end;  // likewise: refused, or the clock is gone
};

class ClockPresence {
 public:
  // To be called when requests can be taken: the clock hears of it at once.
  static StatusOr<std::unique_ptr<ClockPresence>> start(ClockPresenceOptions options);
  ~ClockPresence();

 private:
  ClockPresence(ClockPresenceOptions options, std::unique_ptr<ClockClient> clock);
  void run();
  Status introduce();
  Status take(const wire::FromClock& message);

  const ClockPresenceOptions options_;
  const std::unique_ptr<ClockClient> clock_;
  std::chrono::milliseconds heartbeat_every_{5000};
  WakeFd stop_;
  std::thread thread_;
};

}  // namespace flotilla
