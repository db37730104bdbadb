// The flags of api_server, typed. The launcher reads the same flags (behind --args), so both start
// from this one table.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/flags/flags.h"
#include "common/log.h"
#include "common/status.h"
#include "launcher/rank_loss.h"

namespace flotilla {

enum class EngineKind { kModel, kNull };
enum class ActivationDtype { kAuto, kF32, kBf16 };
enum class MeshTransport { kUnix, kTcp };
enum class LoadChoice { kDefault, kDummy };

struct ServerFlags {
  // Server
  std::string host = "0.0.0.0";
  int port = 8000;                  // 0: any free port
  std::optional<int> metrics_port;  // absent: probes and metrics on the main port only
  bool headless = false;            // no HTTP generation routes; served through the queue port
  int max_concurrency = 2048;       // generations at once; beyond: 429
  int max_queue_length = 2048;      // waiting in the engine; beyond: 429
  std::chrono::seconds max_queue_wait{300};           // 0: no limit; beyond: 429
  std::chrono::seconds timeout_graceful_shutdown{0};  // 0: no limit
  int64_t max_body_bytes = 32 << 20;
  int max_n = 16;
  std::vector<std::string> api_keys;         // empty: open; never print
  std::vector<std::string> allowed_origins;  // empty: no CORS headers; "*": all
  std::vector<std::string> served_model_names;

  // Model
  std::string model;      // folder; empty only with --engine null
  std::string tokenizer;  // folder; = model unless given
  std::optional<int64_t>
      max_model_len;  // tokens; absent: 2048, or the model's own limit where that is smaller
  LoadChoice load_choice = LoadChoice::kDefault;
  std::optional<uint64_t> seed;
  EngineKind engine = EngineKind::kModel;
  double null_rate = 20.0;       // tokens per second and stream
  std::string chat_template;     // template text or file; empty: the model's
  std::string reasoning_parser;  // "", "qwen3", "ernie-x1"
  int max_logprobs = 20;

  // CPU and memory
  std::string device = "auto";  // "auto", "cpu"
  int num_threads = 0;          // 0: the CPUs this process may use
  std::vector<int> cpu_cores;   // CPUs that computing threads are pinned to; empty: not pinned
  std::string cpu_isa = "auto";
  ActivationDtype activation_dtype = ActivationDtype::kAuto;
  int64_t kv_cache_memory = int64_t{2} << 30;      // bytes
  std::optional<int64_t> num_gpu_blocks_override;  // KV blocks; wins over kv_cache_memory

  // Scheduling
  int block_size = 64;  // tokens per KV block
  int max_num_seqs = 8;
  int max_num_batched_tokens = 512;
  bool enable_prefix_caching = true;

  // Fleet
  int data_parallel_size = 1;
  bool data_parallel_size_given = false;  // as against the default
  int local_data_parallel_id = 0;
  bool enable_expert_parallel = false;
  std::vector<int> engine_worker_queue_ports;  // as given, or one per rank
  std::string queue_host = "127.0.0.1";
  OnRankLoss on_rank_loss = OnRankLoss::kContinue;
  std::chrono::seconds rank_timeout{20};
  MeshTransport mesh_transport = MeshTransport::kUnix;
  std::string cluster_secret_file;
  std::string clock_address;  // "unix:/…/clock.sock"; empty: a fleet of one without a clock
  std::string run_dir;        // private folder for Unix sockets; empty: none was made

  // General
  LogLevel log_level = LogLevel::kInfo;
  bool log_json = false;

  // For the log at start.
  std::string non_default;  // "--port=9000 --api-key=***"
  std::vector<std::string> warnings;
  std::vector<std::string> notes;  // accepted flags that change nothing here
};

enum class ServerFlagsUse {
  kRank,      // by api_server itself
  kLauncher,  // by multi_api_server, for the words behind --args
};

const FlagTable& server_flag_table();

// Names of flags that each rank gets from the launcher: no user of it can set them, behind --args
// or in the environment.
std::vector<std::string> flags_set_by_launcher();

// All mistakes at once, one line each. kUnimplemented if the first is "not in this version".
StatusOr<ServerFlags> parse_server_flags(const std::vector<std::string>& args,
                                         const Environment& environment,
                                         ServerFlagsUse use = ServerFlagsUse::kRank);

// What --help, --version or --print-flags want printed; nullopt if none of them stands in `args`.
std::optional<std::string> server_flags_info(const std::vector<std::string>& args);

// The queue port of `rank` by the launcher's list rules: none → 0 (any free port), one for several
// ranks → port + rank.
int queue_port_of(const ServerFlags& flags, int rank);

}  // namespace flotilla
