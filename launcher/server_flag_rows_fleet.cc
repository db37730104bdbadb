#include "launcher/server_flag_rows.h"

namespace flotilla {
namespace {

constexpr Availability kNoEffect = Availability::kNoEffect;
constexpr Availability kLater = Availability::kLater;
constexpr Availability kSuperseded = Availability::kSuperseded;

constexpr char kRedis[] = "needs placement through Redis";
constexpr char kApart[] = "needs prefill and decode apart";
constexpr char kBalancing[] = "needs moving experts between ranks by load";

std::vector<FlagSpec> parallel_rows() {
  return {
      {.name = "data-parallel-size",
       .type = FlagType::kInt,
       .group = kFleetGroup,
       .metavar = "RANKS",
       .default_value = "1",
       .unit = "ranks",
       .help = "Ranks of the fleet. More than one is started by multi_api_server.",
       .min = 1,
       .max = 1024},
      {.name = "enable-expert-parallel",
       .type = FlagType::kBool,
       .group = kFleetGroup,
       .default_value = "false",
       .help = "Spreads the experts of a Mixture-of-Experts model over all ranks, which then run "
               "in step."},
      {.name = "engine-worker-queue-port",
       .type = FlagType::kPorts,
       .group = kFleetGroup,
       .default_note = "free ports",
       .help = "Where each rank takes work from other processes. One port for several ranks means "
               "port + rank."},
      {.name = "queue-host",
       .group = kFleetGroup,
       .metavar = "ADDRESS",
       .default_value = "127.0.0.1",
       .help = "Address of the queue port. Give the cluster secret to every host that connects."},
      {.name = "headless",
       .type = FlagType::kBool,
       .group = kFleetGroup,
       .default_value = "false",
       .help = "A rank without HTTP generation routes, served through its queue port; its metrics "
               "port stays."},
      {.name = "on-rank-loss",
       .type = FlagType::kChoice,
       .group = kFleetGroup,
       .default_value = "continue",
       .help = "continue: survivors load a dead rank's experts and go on; wait: their streams "
               "pause until it is back.",
       .choices = {{"continue"}, {"wait"}}},
      {.name = "rank-timeout",
       .type = FlagType::kInt,
       .group = kFleetGroup,
       .metavar = "SECONDS",
       .default_value = "20",
       .unit = "s",
       .help = "A rank without progress for so long is killed and started again.",
       .min = 1,
       .max = 86'400},
      {.name = "mesh-transport",
       .type = FlagType::kChoice,
       .group = kFleetGroup,
       .default_value = "unix",
       .help = "Sockets of the expert exchange between ranks.",
       .choices = {{"unix"}, {"tcp"}}},
      {.name = "cluster-secret-file",
       .group = kFleetGroup,
       .metavar = "FILE",
       .default_note = "FLOTILLA_CLUSTER_SECRET, else made by the launcher",
       .help = "Secret (16 bytes or more) that internal connections prove to know."},
      {.name = "local-data-parallel-id",
       .type = FlagType::kInt,
       .group = kFleetGroup,
       .metavar = "RANK",
       .default_value = "0",
       .help = "Which rank this process is.",
       .min = 0,
       .max = 1023,
       .internal = true},
      {.name = "clock-address",
       .group = kFleetGroup,
       .metavar = "unix:PATH",
       .help = "Where the step clock listens.",
       .internal = true},
      {.name = "run-dir",
       .group = kFleetGroup,
       .metavar = "DIR",
       .help = "Private folder for the fleet's Unix sockets.",
       .internal = true},
      {.name = "tensor-parallel-size",
       .type = FlagType::kInt,
       .group = kFleetGroup,
       .availability = kLater,
       .note = "needs attention spread over several devices",
       .accepted = {"1"},
       .aliases = {"-tp"}},
      {.name = "ips",
       .group = kFleetGroup,
       .availability = kLater,
       .note = "needs fleets over several machines",
       .accepted = {"127.0.0.1", "localhost"}},
      {.name = "enable-eplb",
       .type = FlagType::kBool,
       .group = kFleetGroup,
       .availability = kLater,
       .note = kBalancing},
      {.name = "eplb-config", .group = kFleetGroup, .availability = kLater, .note = kBalancing},
      {.name = "use-internode-ll-two-stage",
       .type = FlagType::kBool,
       .group = kFleetGroup,
       .availability = kLater,
       .note = "needs fleets over several machines"},
      {.name = "disable-sequence-parallel-moe",
       .type = FlagType::kBool,
       .group = kFleetGroup,
       .availability = kNoEffect,
       .note = "it concerns tensor parallelism only"},
      {.name = "shutdown-comm-group-if-worker-idle",
       .type = FlagType::kBool,
       .group = kFleetGroup,
       .availability = kNoEffect,
       .note = "an idle fleet sleeps anyway",
       .negatable = true},
  };
}

std::vector<FlagSpec> apart_rows() {
  return {
      {.name = "splitwise-role",
       .type = FlagType::kChoice,
       .group = kFleetGroup,
       .default_value = "mixed",
       .help = "What the ranks do: mixed is prefill and decode.",
       .choices = {{"mixed"}, {"prefill", kLater, kApart}, {"decode", kLater, kApart}}},
      {.name = "cache-transfer-protocol",
       .group = kFleetGroup,
       .availability = kLater,
       .note = kApart},
      {.name = "pd-comm-port",
       .type = FlagType::kPorts,
       .group = kFleetGroup,
       .availability = kLater,
       .note = kApart},
      {.name = "rdma-comm-ports",
       .type = FlagType::kPorts,
       .group = kFleetGroup,
       .availability = kLater,
       .note = kApart},
      {.name = "router",
       .group = kFleetGroup,
       .availability = kLater,
       .note = "needs registration with a router; put nginx, Envoy or HAProxy in front of the "
               "ranks' ports"},
      {.name = "innode-prefill-ports",
       .type = FlagType::kPorts,
       .group = kFleetGroup,
       .availability = kSuperseded,
       .note = "it was removed from FastDeploy too; --splitwise-role (not in this version) takes "
               "its place"},
  };
}

FlagSpec redis_row(std::string name) {
  return {.name = std::move(name), .group = kFleetGroup, .availability = kLater, .note = kRedis};
}

std::vector<FlagSpec> scheduler_rows() {
  std::vector<FlagSpec> rows = {
      {.name = "scheduler-name",
       .type = FlagType::kChoice,
       .group = kFleetGroup,
       .default_value = "local",
       .help = "Which rank serves a request: local is the one that it was sent to.",
       .choices = {{"local"},
                   {"splitwise", kLater, kRedis},
                   {"dp", kLater, "needs one front end over several ranks"},
                   {"global", kSuperseded, "use splitwise (not in this version)"}}},
  };
  for (const char* name : {"scheduler-ttl",
                           "scheduler-host",
                           "scheduler-port",
                           "scheduler-db",
                           "scheduler-topic",
                           "scheduler-min-load-score",
                           "scheduler-load-shards-num",
                           "scheduler-sync-period",
                           "scheduler-expire-period",
                           "scheduler-release-load-expire-period",
                           "scheduler-reader-parallel",
                           "scheduler-writer-parallel",
                           "scheduler-reader-batch-size",
                           "scheduler-writer-batch-size"}) {
    rows.push_back(redis_row(name));
  }
  FlagSpec password = redis_row("scheduler-password");
  password.secret = true;
  rows.push_back(std::move(password));
  return rows;
}

}  // namespace

std::vector<FlagSpec> fleet_rows() {
  std::vector<FlagSpec> rows = parallel_rows();
  for (std::vector<FlagSpec> more : {apart_rows(), scheduler_rows()}) {
    rows.insert(rows.end(), more.begin(), more.end());
  }
  return rows;
}

}  // namespace flotilla
