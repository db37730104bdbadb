// A plan carried out: ports bound, secret and private folder made, step clock and supervisor run
// until the fleet has ended.
#pragma once

#include "common/flags/flags.h"
#include "launcher/launcher_flags.h"
#include "launcher/plan.h"
#include "launcher/server_flags.h"
#include "launcher/supervisor.h"

namespace flotilla {

class Console;

struct FleetOptions {
  LauncherFlags launcher;
  ServerFlags server;
  Environment environment;  // the launcher's own
};

// Binds every port of the plan. All mistakes at once: kUnavailable if a port is busy,
// kInvalidArgument otherwise. Free ports (0) get their numbers in the plan.
StatusOr<std::vector<RankSockets>> bind_ports(Plan* plan);

// Main thread only. `plan.run_dir` must exist. Returns an exit code.
int run_fleet(const Plan& plan,
              std::vector<RankSockets> sockets,
              const FleetOptions& options,
              Console* console);

}  // namespace flotilla
