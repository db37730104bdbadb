// What multi_api_server is going to do, as a value: flags and machine in, processes out. Nothing is
// opened, bound or started here, so --dry-run and the tests see exactly what a start would do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/flags/flags.h"
#include "common/status.h"
#include "launcher/launcher_flags.h"
#include "launcher/machine.h"
#include "launcher/model_sizes.h"
#include "launcher/server_flags.h"

namespace flotilla {

struct RankPlan {
  int rank = 0;
  int http_port = 0;                // 0: any free one, chosen by binding
  std::optional<int> metrics_port;  // 0: likewise; absent: none
  int queue_port = 0;               // 0: likewise
  std::string device;               // "cpu"
  int num_threads = 1;
  std::vector<int> cores;     // CPUs that computing threads are pinned to; empty: not pinned
  std::vector<int> affinity;  // CPUs of its NUMA nodes, for all its threads; empty: any
  std::optional<int64_t> memory_bytes;  // estimate; absent if the model cannot be read
  Environment environment;              // what the launcher changes of its own; secrets included
  std::vector<std::string> unset;       // variables that the rank does not get
};

struct Plan {
  std::vector<RankPlan> ranks;
  std::string program;  // of every rank
  std::string http_host;
  std::string queue_host;
  std::string clock_address;  // "unix:…/clock.sock"
  std::string run_dir;
  std::string log_dir;
  std::vector<std::string> server_args;  // behind --args, without keys
  std::vector<std::string> warnings;
};

struct PlanInput {
  LauncherFlags launcher;
  ServerFlags server;  // from launcher.server_args, ServerFlagsUse::kLauncher
  Machine machine;
  std::optional<ModelSizes> sizes;
  std::string program;  // path of api_server
  std::string run_dir;  // or its pattern, for --dry-run
};

// kInvalidArgument with one line per mistake: a list that is too short, ports that meet,
// --num-servers against
// --data-parallel-size.
StatusOr<Plan> make_plan(const PlanInput& input);

// The ports of one rank once they are bound.
struct RankPorts {
  int http = 0;
  std::optional<int> metrics;
};

// The rank's command line behind the program's name. An unbound port (0) is left out.
std::vector<std::string> rank_arguments(const Plan& plan,
                                        const RankPlan& rank,
                                        const RankPorts& ports);
// `own` with what the plan sets and unsets.
Environment rank_environment(const RankPlan& rank, const Environment& own);

// For --dry-run; secrets masked.
std::string plan_table(const Plan& plan);
std::string plan_json(const Plan& plan);

}  // namespace flotilla
