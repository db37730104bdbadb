// The flags of multi_api_server itself; what stands behind --args is api_server's (server_flags.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/flags/flags.h"
#include "common/log.h"
#include "common/status.h"

namespace flotilla {

struct LauncherFlags {
  std::vector<int> ports;                // as given; empty: free ports
  std::vector<int> metrics_ports;        // empty: no metrics ports
  std::optional<int> num_servers;        // absent: as --data-parallel-size
  std::vector<std::string> server_args;  // behind --args, --config FILE put in front
  std::string log_dir;                   // --log-dir, else FD_LOG_DIR, else "log"
  int64_t log_rotate_bytes = 0;          // 0: never
  int log_backup_count = 7;
  bool dry_run = false;
  bool json = false;

  LogLevel log_level = LogLevel::kInfo;
  bool log_json = false;

  std::string non_default;
  std::vector<std::string> warnings;
  std::vector<std::string> notes;
};

const FlagTable& launcher_flag_table();

// Names of flags that only the launcher has: they may stand in a file or environment shared with
// api_server.
std::vector<std::string> launcher_only_flags();

StatusOr<LauncherFlags> parse_launcher_flags(const std::vector<std::string>& args,
                                             const Environment& environment);

// What --help, --version or --print-flags want printed; nullopt if none of them stands in `args`,
// before or behind --args.
std::optional<std::string> launcher_flags_info(const std::vector<std::string>& args);

// docs/flags.md: the flags of both programs, the environment, the exit codes.
std::string flags_document();

}  // namespace flotilla
