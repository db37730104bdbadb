#include "launcher/plan.h"

#include <algorithm>
#include <map>

#include "common/flags/flag_value.h"
#include "launcher/cluster_secret.h"
#include "launcher/cpu_shares.h"
#include "launcher/inherited.h"

namespace flotilla {
namespace {

constexpr int kDefaultServers = 2;  // FastDeploy's
constexpr int kMaxPort = 65535;
constexpr char kApiKeyVariable[] = "FLOTILLA_API_KEY";

struct Notes {
  std::string errors;  // one line each
  std::vector<std::string> warnings;

  void error(const std::string& line) { errors += (errors.empty() ? "" : "\n") + line; }
};

std::string count_of(size_t n, const std::string& noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

int count_ranks(const PlanInput& input, Notes* notes) {
  const std::optional<int>& servers = input.launcher.num_servers;
  const int ranks = input.server.data_parallel_size;
  if (servers && input.server.data_parallel_size_given && *servers != ranks) {
    notes->error(
        "--num-servers " + std::to_string(*servers) + " and --data-parallel-size " +
        std::to_string(ranks) +
        " differ: every server is one data-parallel rank of the same group, so the group would "
        "wait for ranks "
        "that nobody starts (or refuse those too many); give both the same number, or one of them");
  }
  if (servers) return *servers;
  return input.server.data_parallel_size_given ? ranks : kDefaultServers;
}

// One port per rank from a list as given; 0 is any free one.
std::vector<int> ports_of(const std::string& flag,
                          const std::vector<int>& given,
                          int num_ranks,
                          Notes* notes) {
  const auto wanted = static_cast<size_t>(num_ranks);
  std::vector<int> ports(wanted, 0);
  if (given.empty()) return ports;
  if (given.size() == 1) {
    if (given[0] + num_ranks - 1 > kMaxPort) {
      notes->error(flag + ": got " + std::to_string(given[0]) + " for " + count_of(wanted, "rank") +
                   ", which means port + rank up to " + std::to_string(given[0] + num_ranks - 1) +
                   "; expected at most " + std::to_string(kMaxPort));
      return ports;
    }
    for (int rank = 0; given[0] != 0 && rank < num_ranks; ++rank)
      ports[static_cast<size_t>(rank)] = given[0] + rank;
    return ports;
  }
  if (given.size() < wanted) {
    notes->error(flag + ": got " + count_of(given.size(), "port") + ", needed " +
                 std::to_string(wanted) +
                 " (one per rank; or a single one, which means port + rank)");
    return ports;
  }
  if (given.size() > wanted) {
    notes->warnings.push_back(flag + " has " + count_of(given.size(), "port") + " for " +
                              count_of(wanted, "rank") + ": the first " + std::to_string(wanted) +
                              " are used");
  }
  std::copy_n(given.begin(), wanted, ports.begin());
  return ports;
}

class PortOwners {
 public:
  void claim(int port, const std::string& flag, int rank, Notes* notes) {
    if (port == 0) return;
    const auto [owner, fresh] = owners_.emplace(port, Owner{flag, rank});
    if (fresh) return;
    const Owner& first = owner->second;
    notes->error("port " + std::to_string(port) + " is given twice: in " + first.flag +
                 " for rank " + std::to_string(first.rank) + " and in " + flag + " for rank " +
                 std::to_string(rank) + "; every port must be its own");
  }

 private:
  struct Owner {
    std::string flag;
    int rank;
  };
  std::map<int, Owner> owners_;
};

std::optional<int64_t> memory_of_rank(const PlanInput& input, int num_ranks) {
  const ServerFlags& server = input.server;
  if (!input.sizes || server.engine == EngineKind::kNull) return std::nullopt;
  const ModelSizes& sizes = *input.sizes;
  int64_t bytes = sizes.other_bytes;
  bytes += server.enable_expert_parallel ? (sizes.expert_bytes + num_ranks - 1) / num_ranks
                                         : sizes.expert_bytes;
  if (server.num_gpu_blocks_override) {
    const int64_t element_bytes = server.activation_dtype == ActivationDtype::kBf16 ? 2 : 4;
    bytes += *server.num_gpu_blocks_override * server.block_size * sizes.kv_elements_per_token *
             element_bytes;
  } else {
    bytes += server.kv_cache_memory;
  }
  return bytes;
}

// Keys go to the ranks by their environment: a command line can be read by every user.
std::vector<std::string> without_keys(const std::vector<std::string>& args) {
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string name = normalise_flag_name(args[i].substr(0, args[i].find('=')));
    if (name != "--api-key") {
      out.push_back(args[i]);
    } else if (args[i].find('=') == std::string::npos) {
      ++i;
    }
  }
  return out;
}

std::vector<std::string> variables_to_unset() {
  // systemd's are the launcher's own business; the secret travels by descriptor.
  std::vector<std::string> names = {"NOTIFY_SOCKET",
                                    "WATCHDOG_USEC",
                                    "WATCHDOG_PID",
                                    "LISTEN_FDS",
                                    "LISTEN_PID",
                                    "LISTEN_FDNAMES"};
  names.push_back(kClusterSecretVariable);
  names.push_back(kInheritedFdsVariable);
  for (const std::string& flag : flags_set_by_launcher())
    names.push_back(flag_environment_name(flag));
  return names;
}

}  // namespace

StatusOr<Plan> make_plan(const PlanInput& input) {
  Notes notes;
  const int num_ranks = count_ranks(input, &notes);
  const std::vector<int> http = ports_of("--ports", input.launcher.ports, num_ranks, &notes);
  const bool with_metrics = !input.launcher.metrics_ports.empty();
  const std::vector<int> metrics =
      ports_of("--metrics-ports", input.launcher.metrics_ports, num_ranks, &notes);
  const std::vector<int> queue = ports_of(
      "--engine-worker-queue-port", input.server.engine_worker_queue_ports, num_ranks, &notes);
  if (notes.errors.empty()) {
    PortOwners owners;
    for (int rank = 0; rank < num_ranks; ++rank)
      owners.claim(http[static_cast<size_t>(rank)], "--ports", rank, &notes);
    for (int rank = 0; rank < num_ranks; ++rank) {
      owners.claim(metrics[static_cast<size_t>(rank)], "--metrics-ports", rank, &notes);
    }
    for (int rank = 0; rank < num_ranks; ++rank) {
      owners.claim(queue[static_cast<size_t>(rank)], "--engine-worker-queue-port", rank, &notes);
    }
  }
  if (!notes.errors.empty()) return invalid_argument(notes.errors);

  CpuShares shares = divide_cpus(input.machine, num_ranks, input.server.num_threads);
  notes.warnings.insert(notes.warnings.end(), shares.warnings.begin(), shares.warnings.end());
  const std::optional<int64_t> memory = memory_of_rank(input, num_ranks);
  if (memory && input.machine.memory_bytes > 0 &&
      *memory * num_ranks > input.machine.memory_bytes) {
    notes.warnings.push_back(count_of(static_cast<size_t>(num_ranks), "rank") + " of about " +
                             format_bytes(*memory) + " need more memory than the " +
                             format_bytes(input.machine.memory_bytes) +
                             " that are available; lower --kv-cache-memory or the number of ranks");
  }

  Plan plan;
  plan.program = input.program;
  plan.http_host = input.server.host;
  plan.queue_host = input.server.queue_host;
  plan.run_dir = input.run_dir;
  plan.clock_address = "unix:" + input.run_dir + "/clock.sock";
  plan.log_dir = input.launcher.log_dir;
  plan.server_args = without_keys(input.launcher.server_args);
  if (!input.server.data_parallel_size_given) {
    plan.server_args.insert(plan.server_args.end(),
                            {"--data-parallel-size", std::to_string(num_ranks)});
  }
  std::string keys;
  for (const std::string& key : input.server.api_keys) keys += (keys.empty() ? "" : ",") + key;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const auto i = static_cast<size_t>(rank);
    RankPlan one;
    one.rank = rank;
    one.http_port = http[i];
    if (with_metrics) one.metrics_port = metrics[i];
    one.queue_port = queue[i];
    one.device = "cpu";
    one.num_threads = shares.ranks[i].num_threads;
    one.cores = std::move(shares.ranks[i].cores);
    one.affinity = std::move(shares.ranks[i].affinity);
    one.memory_bytes = memory;
    one.environment["FD_ENABLE_MULTI_API_SERVER"] = "1";
    one.environment["FD_LOG_DIR"] = plan.log_dir + "/log_" + std::to_string(rank);
    if (!keys.empty()) one.environment[kApiKeyVariable] = keys;
    one.unset = variables_to_unset();
    plan.ranks.push_back(std::move(one));
  }
  plan.warnings = std::move(notes.warnings);
  return plan;
}

std::vector<std::string> rank_arguments(const Plan& plan,
                                        const RankPlan& rank,
                                        const RankPorts& ports) {
  std::vector<std::string> args = plan.server_args;
  const auto add = [&args](const std::string& flag, const std::string& value) {
    args.push_back(flag);
    args.push_back(value);
  };
  if (ports.http != 0) add("--port", std::to_string(ports.http));
  if (ports.metrics && *ports.metrics != 0) add("--metrics-port", std::to_string(*ports.metrics));
  add("--local-data-parallel-id", std::to_string(rank.rank));
  add("--num-threads", std::to_string(rank.num_threads));
  if (!rank.cores.empty()) {
    std::string cores;
    for (const int core : rank.cores) cores += (cores.empty() ? "" : ",") + std::to_string(core);
    add("--cpu-cores", cores);
  }
  add("--clock-address", plan.clock_address);
  add("--run-dir", plan.run_dir);
  return args;
}

Environment rank_environment(const RankPlan& rank, const Environment& own) {
  Environment environment = own;
  for (const std::string& name : rank.unset) environment.erase(name);
  for (const auto& [name, value] : rank.environment) environment[name] = value;
  return environment;
}

}  // namespace flotilla
