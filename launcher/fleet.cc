#include "launcher/fleet.h"

#include "common/exit_codes.h"
#include "common/log.h"
#include "launcher/cluster_secret.h"
#include "launcher/console.h"
#include "launcher/inherited.h"
#include "launcher/step_clock_server.h"
#include "launcher/supervisor.h"

namespace flotilla {
namespace {

constexpr char kUnixPrefix[] = "unix:";

PortRequest http_request(const Plan& plan, const RankPlan& rank) {
  return {.host = plan.http_host, .port = rank.http_port, .flag = "--ports", .rank = rank.rank};
}
PortRequest metrics_request(const Plan& plan, const RankPlan& rank) {
  return {.host = plan.http_host,
          .port = rank.metrics_port.value_or(0),
          .flag = "--metrics-ports",
          .rank = rank.rank};
}
PortRequest queue_request(const Plan& plan, const RankPlan& rank) {
  return {.host = plan.queue_host,
          .port = rank.queue_port,
          .flag = "--engine-worker-queue-port",
          .rank = rank.rank};
}

// An address that a client on this machine can use.
std::string url_of(const std::string& host, int port) {
  std::string name = host;
  if (host == "0.0.0.0") name = "127.0.0.1";
  if (host == "::") name = "::1";
  if (name.find(':') != std::string::npos) name = "[" + name + "]";
  return "http://" + name + ":" + std::to_string(port);
}

SupervisedRank supervised(const Plan& plan,
                          const RankPlan& rank,
                          RankSockets sockets,
                          const Environment& environment) {
  SupervisedRank out;
  out.rank = Rank(rank.rank);
  out.command.program = plan.program;
  out.command.args = rank_arguments(plan, rank, {rank.http_port, rank.metrics_port});
  out.command.environment = rank_environment(rank, environment);
  out.command.affinity = rank.affinity;
  out.http = http_request(plan, rank);
  if (rank.metrics_port) out.metrics = metrics_request(plan, rank);
  out.queue = queue_request(plan, rank);
  out.sockets = std::move(sockets);
  out.url = url_of(plan.http_host, rank.http_port);
  return out;
}

int fail(const Status& status) {
  log_error("start_failed", {{"reason", status.message()}});
  return status.code() == StatusCode::kInvalidArgument || status.code() == StatusCode::kNotFound
             ? kExitConfig
             : kExitFailure;
}

}  // namespace

StatusOr<std::vector<RankSockets>> bind_ports(Plan* plan) {
  std::vector<RankSockets> all;
  std::string errors;
  bool busy = false;
  const auto bind = [&](const PortRequest& request, UniqueFd* fd, int* number) {
    StatusOr<UniqueFd> bound = bind_port(request);
    if (!bound.ok()) {
      errors += (errors.empty() ? "" : "\n") + bound.status().message();
      busy |= bound.status().code() == StatusCode::kUnavailable;
      return;
    }
    *fd = *std::move(bound);
    *number = bound_port(fd->get()).value();
  };
  // Given ports first: a free one must not be one of them.
  for (const bool free_ones : {false, true}) {
    all.resize(plan->ranks.size());
    for (size_t i = 0; i < plan->ranks.size(); ++i) {
      RankPlan& rank = plan->ranks[i];
      const auto wanted = [&](int port, const UniqueFd& fd) {
        return !fd && (port == 0) == free_ones;
      };
      if (wanted(rank.http_port, all[i].http))
        bind(http_request(*plan, rank), &all[i].http, &rank.http_port);
      if (rank.metrics_port && wanted(*rank.metrics_port, all[i].metrics)) {
        bind(metrics_request(*plan, rank), &all[i].metrics, &*rank.metrics_port);
      }
      if (wanted(rank.queue_port, all[i].queue))
        bind(queue_request(*plan, rank), &all[i].queue, &rank.queue_port);
    }
  }
  if (!errors.empty()) return busy ? unavailable(errors) : invalid_argument(errors);
  return all;
}

int run_fleet(const Plan& plan,
              std::vector<RankSockets> sockets,
              const FleetOptions& options,
              Console* console) {
  const StatusOr<std::string> secret =
      find_cluster_secret(options.server.cluster_secret_file, options.environment);
  if (!secret.ok()) return fail(secret.status());
  const StatusOr<UniqueFd> secret_fd = make_secret_memfd(*secret);
  if (!secret_fd.ok()) return fail(secret_fd.status());

  std::vector<SupervisedRank> ranks;
  for (size_t i = 0; i < plan.ranks.size(); ++i) {
    ranks.push_back(supervised(plan, plan.ranks[i], std::move(sockets[i]), options.environment));
  }
  SupervisorOptions supervision;
  supervision.log_dir = plan.log_dir;
  supervision.log_rotate_bytes = options.launcher.log_rotate_bytes;
  supervision.log_backup_count = options.launcher.log_backup_count;
  supervision.drain_limit = options.server.timeout_graceful_shutdown;
  supervision.restart_while_draining = options.server.on_rank_loss == OnRankLoss::kWait;
  supervision.secret_fd = secret_fd->get();
  supervision.environment = options.environment;
  Supervisor supervisor(std::move(supervision), std::move(ranks), console);

  const StatusOr<std::unique_ptr<StepClockServer>> clock =
      StepClockServer::start(plan.clock_address.substr(sizeof kUnixPrefix - 1),
                             {.num_ranks = static_cast<int32_t>(plan.ranks.size()),
                              .on_rank_loss = options.server.on_rank_loss,
                              .rank_timeout = options.server.rank_timeout},
                             supervisor);
  if (!clock.ok()) return fail(clock.status());
  return supervisor.run(clock->get());
}

}  // namespace flotilla
