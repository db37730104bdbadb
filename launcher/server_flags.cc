#include "launcher/server_flags.h"

#include <algorithm>

#include "common/flags/flag_value.h"
#include "common/flags/help.h"
#include "launcher/launcher_flags.h"
#include "launcher/server_flag_rows.h"

namespace flotilla {
namespace {

constexpr int kMultiServerConcurrency = 512;  // FastDeploy's default under multi_api_server
// Rows of a step where the flag is absent: FastDeploy's 8,192 would hold other streams up for seconds
// on a CPU.
constexpr int kCpuBatchedTokens = 512;

FlagTable make_table() {
  FlagTable table;
  table.program = "api_server";
  table.usage = "api_server --model DIR [flags]";
  table.about =
      "One rank: an OpenAI-compatible HTTP server with the engine behind it. Several ranks that "
      "share the experts of one "
      "model are started by multi_api_server.";
  table.groups = {
      {kServerGroup, "--port 8000 --metrics-port 9000 --max-concurrency 512"},
      {kModelGroup, "--model ./ERNIE-4.5-21B-A3B --max-model-len 12288"},
      {kComputeGroup, "--num-threads 8 --kv-cache-memory 4GiB"},
      {kSchedulingGroup, "--max-num-seqs 64 --max-num-batched-tokens 4096"},
      {kFleetGroup,
       "--data-parallel-size 8 --enable-expert-parallel --engine-worker-queue-port 25611"},
  };
  for (const std::vector<FlagSpec>& rows : {server_rows(), engine_rows(), fleet_rows()}) {
    table.flags.insert(table.flags.end(), rows.begin(), rows.end());
  }
  add_common_flags(&table);
  table.foreign = launcher_only_flags();
  table.foreign_note = "is a flag of multi_api_server: put it before --args";
  return table;
}

// What the launcher gives to each rank itself, and how its user says it.
struct LaunchersOwn {
  const char* name;
  const char* instead;
};
constexpr LaunchersOwn kLaunchersOwn[] = {
    {"port", "give --ports before --args"},
    {"metrics-port", "give --metrics-ports before --args"},
    {"local-data-parallel-id", "each rank gets its own"},
    {"cpu-cores",
     "the CPUs are divided among the ranks; --num-threads sets how many threads compute in each"},
    {"clock-address", "the launcher runs the step clock"},
    {"run-dir", "the launcher makes the folder"},
};

void append_line(std::string* out, const std::string& line) {
  *out += (out->empty() ? "" : "\n") + line;
}

// Two names of one setting: FastDeploy's and ours.
void take_twin(const ParsedFlags& parsed,
               const std::string& ours,
               const std::string& theirs,
               int64_t* value,
               std::string* errors) {
  const int64_t other = parsed.integer(theirs);
  if (other == -1) return;
  if (parsed.given(ours) && parsed.integer(ours) != other) {
    append_line(errors,
                "--" + ours + " is " + std::to_string(parsed.integer(ours)) + " and --" + theirs +
                    " is " + std::to_string(other) + ": they mean the same, give one");
  }
  *value = other;
}

std::vector<std::string> api_keys(const ParsedFlags& parsed,
                                  const Environment& environment,
                                  std::string* errors) {
  std::vector<std::string> keys = parsed.list("api-key");
  if (!parsed.given("api-key")) {
    if (const auto found = environment.find("FD_API_KEY"); found != environment.end()) {
      keys = split_list(found->second);
    }
  }
  for (const std::string& key : keys) {
    // A comma list in the environment is how the launcher hands keys to its ranks.
    if (key.empty() || key.find(',') != std::string::npos) {
      append_line(errors,
                  "--api-key: got an empty key or one with a comma, expected text without commas");
      break;
    }
  }
  return keys;
}

void check_fleet(const ParsedFlags& parsed,
                 const ServerFlags& flags,
                 ServerFlagsUse use,
                 std::string* errors) {
  if (use == ServerFlagsUse::kLauncher) {
    for (const LaunchersOwn& own : kLaunchersOwn) {
      const FlagSource source = parsed.source(own.name);
      if (source == FlagSource::kCommandLine || source == FlagSource::kFile) {
        append_line(
            errors,
            std::string("--") + own.name + " cannot stand " +
                (source == FlagSource::kFile ? "in a file for several ranks" : "behind --args") +
                ": " + own.instead);
      }
    }
    return;
  }
  if (flags.data_parallel_size > 1 && flags.clock_address.empty()) {
    append_line(errors,
                "--data-parallel-size " + std::to_string(flags.data_parallel_size) +
                    " is not in this version of api_server alone: it needs one front end over "
                    "several ranks; use "
                    "multi_api_server --num-servers " +
                    std::to_string(flags.data_parallel_size) + " --args … instead");
  }
  if (flags.local_data_parallel_id >= flags.data_parallel_size) {
    append_line(errors,
                "--local-data-parallel-id: got " + std::to_string(flags.local_data_parallel_id) +
                    ", expected less than --data-parallel-size " +
                    std::to_string(flags.data_parallel_size));
  }
  if (!flags.clock_address.empty() && !flags.clock_address.starts_with("unix:")) {
    append_line(errors, "--clock-address: got '" + flags.clock_address + "', expected unix:PATH");
  }
}

}  // namespace

std::vector<std::string> flags_set_by_launcher() {
  std::vector<std::string> names;
  for (const LaunchersOwn& own : kLaunchersOwn) names.emplace_back(own.name);
  return names;
}

const FlagTable& server_flag_table() {
  static const FlagTable* table = new FlagTable(make_table());
  return *table;
}

std::optional<std::string> server_flags_info(const std::vector<std::string>& args) {
  return flags_info(server_flag_table(), args);
}

StatusOr<ServerFlags> parse_server_flags(const std::vector<std::string>& args,
                                         const Environment& environment,
                                         ServerFlagsUse use) {
  const StatusOr<ParsedFlags> result = parse_flags(server_flag_table(), args, environment);
  if (!result.ok()) return result.status();
  const ParsedFlags& parsed = *result;
  std::string errors;
  ServerFlags flags;

  flags.host = parsed.text("host");
  flags.port = static_cast<int>(parsed.integer("port"));
  if (parsed.has("metrics-port"))
    flags.metrics_port = static_cast<int>(parsed.integer("metrics-port"));
  // FastDeploy's way to say "on the main port".
  if (flags.metrics_port == flags.port && flags.port != 0) flags.metrics_port.reset();
  flags.headless = parsed.boolean("headless");
  const auto multi = environment.find("FD_ENABLE_MULTI_API_SERVER");
  if (parsed.has("max-concurrency")) {
    flags.max_concurrency = static_cast<int>(parsed.integer("max-concurrency"));
  } else if (multi != environment.end() && parse_bool(multi->second).value_or(false)) {
    flags.max_concurrency = kMultiServerConcurrency;
  }
  int64_t queue_length = parsed.integer("max-queue-length");
  take_twin(parsed, "max-queue-length", "scheduler-max-size", &queue_length, &errors);
  // FastDeploy's 0 is "no limit"; the largest bound stands for it.
  flags.max_queue_length = queue_length == 0 ? 1'000'000 : static_cast<int>(queue_length);
  int64_t queue_wait = parsed.integer("max-queue-wait");
  take_twin(parsed, "max-queue-wait", "max-waiting-time", &queue_wait, &errors);
  flags.max_queue_wait = std::chrono::seconds(queue_wait);
  flags.timeout_graceful_shutdown =
      std::chrono::seconds(parsed.integer("timeout-graceful-shutdown"));
  flags.max_body_bytes = parsed.integer("max-body-bytes");
  flags.max_n = static_cast<int>(parsed.integer("max-n"));
  flags.api_keys = api_keys(parsed, environment, &errors);
  flags.allowed_origins = parsed.list("allowed-origins");
  flags.served_model_names = parsed.list("served-model-name");

  flags.model = parsed.text("model");
  flags.tokenizer = parsed.has("tokenizer") ? parsed.text("tokenizer") : flags.model;
  if (parsed.has("max-model-len")) flags.max_model_len = parsed.integer("max-model-len");
  if (parsed.text("load-choices") == "dummy") flags.load_choice = LoadChoice::kDummy;
  if (parsed.has("seed")) flags.seed = static_cast<uint64_t>(parsed.integer("seed"));
  if (parsed.text("engine") == "null") flags.engine = EngineKind::kNull;
  flags.null_rate = parsed.number("null-rate");
  flags.chat_template = parsed.text("chat-template");
  flags.reasoning_parser = parsed.text("reasoning-parser");
  flags.max_logprobs = static_cast<int>(parsed.integer("max-logprobs"));

  flags.device = parsed.text("device");
  flags.num_threads = static_cast<int>(parsed.integer("num-threads"));
  if (const std::optional<std::vector<int>> cores = parse_cpu_list(parsed.text("cpu-cores"))) {
    flags.cpu_cores = *cores;
  } else {
    append_line(&errors,
                "--cpu-cores: got '" + parsed.text("cpu-cores") + "', expected CPUs such as 0-3,8");
  }
  flags.cpu_isa = parsed.text("cpu-isa");
  const std::string dtype = parsed.text("activation-dtype");
  if (dtype == "f32") flags.activation_dtype = ActivationDtype::kF32;
  if (dtype == "bf16") flags.activation_dtype = ActivationDtype::kBf16;
  flags.kv_cache_memory = parsed.integer("kv-cache-memory");
  if (parsed.has("num-gpu-blocks-override")) {
    flags.num_gpu_blocks_override = parsed.integer("num-gpu-blocks-override");
  }

  flags.block_size = static_cast<int>(parsed.integer("block-size"));
  flags.max_num_seqs = static_cast<int>(parsed.integer("max-num-seqs"));
  flags.max_num_batched_tokens =
      parsed.has("max-num-batched-tokens")
          ? static_cast<int>(parsed.integer("max-num-batched-tokens"))
          : std::max(kCpuBatchedTokens, flags.max_num_seqs);
  flags.enable_prefix_caching = parsed.boolean("enable-prefix-caching");

  flags.data_parallel_size = static_cast<int>(parsed.integer("data-parallel-size"));
  flags.data_parallel_size_given = parsed.given("data-parallel-size");
  flags.local_data_parallel_id = static_cast<int>(parsed.integer("local-data-parallel-id"));
  flags.enable_expert_parallel = parsed.boolean("enable-expert-parallel");
  flags.engine_worker_queue_ports = parsed.ports("engine-worker-queue-port");
  flags.queue_host = parsed.text("queue-host");
  if (parsed.text("on-rank-loss") == "wait") flags.on_rank_loss = OnRankLoss::kWait;
  flags.rank_timeout = std::chrono::seconds(parsed.integer("rank-timeout"));
  if (parsed.text("mesh-transport") == "tcp") flags.mesh_transport = MeshTransport::kTcp;
  flags.cluster_secret_file = parsed.text("cluster-secret-file");
  flags.clock_address = parsed.text("clock-address");
  flags.run_dir = parsed.text("run-dir");

  parse_log_level(parsed.text("log-level"), &flags.log_level);
  flags.log_json = parsed.boolean("log-json");
  flags.non_default = parsed.non_default();
  flags.warnings = parsed.warnings();
  flags.notes = parsed.notes();

  if (flags.model.empty() && flags.engine == EngineKind::kModel) {
    append_line(&errors,
                "--model is missing: give the folder of a model (or --engine null for load tests "
                "without one)");
  }
  if (flags.max_num_batched_tokens < flags.max_num_seqs) {
    append_line(&errors,
                "--max-num-batched-tokens: got " + std::to_string(flags.max_num_batched_tokens) +
                    ", expected at least --max-num-seqs " + std::to_string(flags.max_num_seqs) +
                    ", for every running sequence takes one token per step");
  }
  check_fleet(parsed, flags, use, &errors);
  if (!errors.empty()) return invalid_argument(errors);
  return flags;
}

int queue_port_of(const ServerFlags& flags, int rank) {
  const std::vector<int>& ports = flags.engine_worker_queue_ports;
  if (ports.empty()) return 0;
  if (ports.size() == 1) return ports.front() == 0 ? 0 : ports.front() + rank;
  return static_cast<size_t>(rank) < ports.size() ? ports[static_cast<size_t>(rank)] : 0;
}

}  // namespace flotilla
