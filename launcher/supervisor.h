// Owns the rank processes of a fleet: starts them, passes their output on, restarts who dies,
// drains and ends them.
//
// What it expects of a rank's program:
// - it takes its sockets and the secret with take_inherited_fds() (inherited.h) and listens when it
// likes;
// - readiness, progress and hangs are told by the step clock (fleet_events.h), not guessed;
// - the first SIGTERM drains it: new work is refused, running streams finish, exit code 0; a second
// signal, SIGTERM or SIGINT, ends it now, with
//   kExitStreamsCut if a running stream was cut, else 0 (exit_codes.h). A rank that is still
//   loading ends at the first;
// - exit code kExitConfig: the flags or the model are wrong. Before the fleet was ever complete
// that ends the fleet at once.
//
// Threads: construct, run() and destroy it on the main thread (children die with the thread that
// forked them); drain() and the FleetEvents may be called from any thread until it is destroyed. It
// sleeps when nothing happens: no timer ticks.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/flags/flags.h"
#include "launcher/fleet_events.h"
#include "launcher/process.h"
#include "launcher/restart_policy.h"
#include "launcher/sockets.h"

namespace flotilla {

class Console;

// Bound, not listening. The launcher's copies are closed as soon as the rank has them, so that a
// dead rank's port refuses.
struct RankSockets {
  UniqueFd http;
  UniqueFd metrics;
  UniqueFd queue;
};

struct SupervisedRank {
  Rank rank;
  ChildCommand command;  // FLOTILLA_FDS is added
  // Bound again, on the same numbers, for every restart. Absent: the rank has no such port.
  std::optional<PortRequest> http;
  std::optional<PortRequest> metrics;
  std::optional<PortRequest> queue;
  RankSockets sockets;  // for the first start
  std::string url;      // for the line that says all are ready
};

struct SupervisorOptions {
  std::string log_dir;  // rank i writes to log_dir/log_i/api_server.log; empty: no log files
  int64_t log_rotate_bytes = 0;
  int log_backup_count = 0;
  RestartOptions restart;
  std::chrono::milliseconds port_retry{1'000};  // a restart whose port somebody took meanwhile
  std::chrono::seconds drain_limit{0};          // 0: none; then running streams are cut
  std::chrono::milliseconds failure_drain_limit{
      30'000};  // of the drain that follows a failure, where drain_limit is 0
  std::chrono::milliseconds kill_grace{5'000};  // from "end now" to SIGKILL
  bool restart_while_draining =
      false;  // --on-rank-loss wait: the others cannot finish without a rank that dies
  bool handle_signals = true;  // SIGTERM, SIGINT, SIGHUP (unless ignored) call drain()
  int secret_fd = -1;          // make_secret_memfd(); -1: none is handed over
  Environment environment;     // for NOTIFY_SOCKET
};

class Supervisor final : public FleetEvents {
 public:
  // `ranks` are 0 … N-1 in order. `console` must outlive it.
  Supervisor(SupervisorOptions options, std::vector<SupervisedRank> ranks, Console* console);
  ~Supervisor() override;  // kills what still runs

  // Starts all ranks and watches them until the fleet has ended. Returns the exit code
  // (exit_codes.h). Once.
  int run(FleetListener* listener);

  // As a signal does: the first call drains the fleet, the second ends it now, the third kills.
  void drain();

  void on_progress(Rank rank, pid_t pid, std::string stage, double fraction) override;
  void on_serving(Rank rank, pid_t pid, double seconds) override;
  void on_hung(Rank rank, pid_t pid, std::string reason) override;
  void on_refused(Rank rank, pid_t pid, std::string reason) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla
