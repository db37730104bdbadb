#include "launcher/launcher_flags.h"

#include "common/exit_codes.h"
#include "common/flags/flag_value.h"
#include "common/flags/help.h"
#include "launcher/server_flags.h"

namespace flotilla {
namespace {

constexpr char kGroup[] = "Launcher";

std::vector<FlagSpec> launcher_rows() {
  return {
      {.name = "num-servers",
       .type = FlagType::kInt,
       .group = kGroup,
       .default_note = "as --data-parallel-size behind --args, else 2",
       .unit = "ranks",
       .help =
           "Servers to start, one per rank; must equal --data-parallel-size where that is given.",
       .min = 1,
       .max = 1024},
      {.name = "ports",
       .type = FlagType::kPorts,
       .group = kGroup,
       .default_note = "free ports",
       .help = "HTTP port of each rank. One port for several ranks means port + rank; a longer "
               "list is used from the "
               "front; 0 is any free port."},
      {.name = "metrics-ports",
       .group = kGroup,
       .metavar = "PORT,PORT,…",
       .default_value = "-1",
       .help = "Metrics port of each rank, by the rules of --ports; -1 for none."},
      {.name = "controller-ports",
       .group = kGroup,
       .availability = Availability::kLater,
       .note = "needs the controller routes",
       .accepted = {"-1"}},
      {.name = "log-dir",
       .group = kGroup,
       .metavar = "DIR",
       .default_note = "FD_LOG_DIR, else log",
       .help = "The output of rank i is also written to DIR/log_i/api_server.log."},
      {.name = "log-rotate-bytes",
       .type = FlagType::kBytes,
       .group = kGroup,
       .default_value = "64MiB",
       .help = "A rank's log file is renamed to api_server.1.log (and so on) at this size; 0 for "
               "never.",
       .min = 0},
      {.name = "log-backup-count",
       .type = FlagType::kInt,
       .group = kGroup,
       .default_note = "FD_LOG_BACKUP_COUNT, else 7",
       .unit = "files",
       .help = "Renamed log files that are kept per rank.",
       .min = 0,
       .max = 1000},
      {.name = "dry-run",
       .type = FlagType::kBool,
       .group = kGroup,
       .default_value = "false",
       .help = "Prints the plan (ranks, ports, devices, CPUs, memory, command lines) and exits."},
      {.name = "json",
       .type = FlagType::kBool,
       .group = kGroup,
       .default_value = "false",
       .help = "With --dry-run: the plan as JSON."},
      {.name = "args",
       .type = FlagType::kRemainder,
       .group = kGroup,
       .metavar = "API_SERVER_FLAGS…",
       .help = "Everything behind it goes to every api_server. Must be last."},
  };
}

FlagTable make_table() {
  FlagTable table;
  table.program = "multi_api_server";
  table.usage = "multi_api_server [flags] --args --model DIR [flags of api_server]";
  table.about =
      "Starts, watches, restarts and drains N api_server processes that share the experts of one "
      "model, and runs the step "
      "clock that keeps them together.";
  table.groups = {
      {kGroup,
       "--num-servers 2 --ports 8000,8001 --metrics-ports 9000,9001 --args --model ./model"}};
  table.flags = launcher_rows();
  add_common_flags(&table);
  return table;
}

// "-1" alone is FastDeploy's "none"; parse_ports takes the rest.
bool parse_port_list(const std::string& text, std::vector<int>* ports) {
  ports->clear();
  if (text.empty() || text == "-1") return true;
  const std::optional<std::vector<int>> parsed = parse_ports(text);
  if (parsed) *ports = *parsed;
  return parsed.has_value();
}

std::string environment_or(const Environment& environment,
                           const std::string& name,
                           const std::string& otherwise) {
  const auto found = environment.find(name);
  return found == environment.end() || found->second.empty() ? otherwise : found->second;
}

bool sets_config(const std::vector<std::string>& args) {
  for (const std::string& token : args) {
    if (token == "--config" || token.starts_with("--config=")) return true;
  }
  return false;
}

}  // namespace

const FlagTable& launcher_flag_table() {
  static const FlagTable* table = [] {
    auto* made = new FlagTable(make_table());
    made->foreign_note = "is a flag of api_server: put it behind --args";
    for (const FlagSpec& flag : server_flag_table().flags) {
      if (made->find(flag.name) == nullptr) made->foreign.push_back(flag.name);
    }
    return made;
  }();
  return *table;
}

std::vector<std::string> launcher_only_flags() {
  std::vector<std::string> names;
  for (const FlagSpec& flag : launcher_rows()) names.push_back(flag.name);
  return names;
}

StatusOr<LauncherFlags> parse_launcher_flags(const std::vector<std::string>& args,
                                             const Environment& environment) {
  const StatusOr<ParsedFlags> result = parse_flags(launcher_flag_table(), args, environment);
  if (!result.ok()) return result.status();
  const ParsedFlags& parsed = *result;
  LauncherFlags flags;
  flags.ports = parsed.ports("ports");
  if (!parse_port_list(parsed.text("metrics-ports"), &flags.metrics_ports)) {
    return invalid_argument("--metrics-ports: got '" + parsed.text("metrics-ports") +
                            "', expected -1 or port numbers from 0 to 65535 separated by commas");
  }
  if (parsed.has("num-servers"))
    flags.num_servers = static_cast<int>(parsed.integer("num-servers"));
  flags.server_args = parsed.list("args");
  // One file serves both programs, unless the ranks have their own.
  if (const std::string config = parsed.text("config");
      !config.empty() && !sets_config(flags.server_args)) {
    flags.server_args.insert(flags.server_args.begin(), {"--config", config});
  }
  flags.log_dir = parsed.has("log-dir") ? parsed.text("log-dir")
                                        : environment_or(environment, "FD_LOG_DIR", "log");
  flags.log_rotate_bytes = parsed.integer("log-rotate-bytes");
  if (parsed.has("log-backup-count")) {
    flags.log_backup_count = static_cast<int>(parsed.integer("log-backup-count"));
  } else if (const auto count =
                 parse_integer(environment_or(environment, "FD_LOG_BACKUP_COUNT", ""))) {
    if (*count >= 0 && *count <= 1000) flags.log_backup_count = static_cast<int>(*count);
  }
  flags.dry_run = parsed.boolean("dry-run");
  flags.json = parsed.boolean("json");
  if (flags.json && !flags.dry_run)
    return invalid_argument("--json goes with --dry-run only (--log-json is for logs)");
  parse_log_level(parsed.text("log-level"), &flags.log_level);
  flags.log_json = parsed.boolean("log-json");
  flags.non_default = parsed.non_default();
  flags.warnings = parsed.warnings();
  flags.notes = parsed.notes();
  return flags;
}

std::optional<std::string> launcher_flags_info(const std::vector<std::string>& args) {
  if (const std::optional<std::string> format = print_flags_format(launcher_flag_table(), args)) {
    if (*format == "markdown") return flags_document();
    if (*format == "json") return json_text(launcher_flag_table()) + json_text(server_flag_table());
  }
  if (std::optional<std::string> own = flags_info(launcher_flag_table(), args)) return own;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--args") {
      return server_flags_info(
          std::vector<std::string>(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end()));
    }
  }
  return std::nullopt;
}

std::string flags_document() {
  std::string out =
      "# Flags\n\n"
      "Made by `multi_api_server --print-flags markdown`; a test compares. Do not edit.\n\n"
      "`--flag value` and `--flag=value` are the same everywhere, also behind `--args`; so are `_` "
      "and `-` in a name. "
      "Every flag can also be set by the environment variable `FLOTILLA_<FLAG>` "
      "(`--max-model-len`: "
      "`FLOTILLA_MAX_MODEL_LEN`) and in the INI file of `--config FILE`, which may hold the flags "
      "of both programs. "
      "Precedence: command line > environment > file > default. A flag that this version lacks "
      "stops the start and "
      "says what it would need; a typo stops it with the nearest flag. An unknown `FLOTILLA_…` "
      "variable is one warning; "
      "those that Kubernetes injects for a Service called `flotilla` (`tcp://…`) are ignored.\n\n";
  out += markdown_text(launcher_flag_table());
  out += markdown_text(server_flag_table());
  out +=
      "## Environment\n\n| Variable | Meaning |\n|---|---|\n"
      "| `FLOTILLA_<FLAG>` | Any flag above; comma lists for repeatable ones. |\n"
      "| `FLOTILLA_CLUSTER_SECRET` | The cluster secret (16 bytes or more), where no "
      "--cluster-secret-file is given. It is "
      "taken out of the environment of the ranks and reaches them by an inherited descriptor. |\n"
      "| `FLOTILLA_FDS` | Set by the launcher for its ranks: which inherited descriptor is what. "
      "|\n"
      "| `FD_LOG_DIR` | Where --log-dir is not given; each rank sees its own folder, `…/log_i`. |\n"
      "| `FD_LOG_BACKUP_COUNT` | Where --log-backup-count is not given. |\n"
      "| `FD_API_KEY` | Comma list of keys, where --api-key is not given. |\n"
      "| `FD_ENABLE_MULTI_API_SERVER` | Set to 1 for the ranks by multi_api_server itself; "
      "exporting it is harmless. |\n"
      "| `XDG_RUNTIME_DIR` | Where the private folder for Unix sockets is made (else `/tmp`). |\n"
      "| `NOTIFY_SOCKET` | systemd's: READY=1 is sent when all ranks are ready. |\n\n"
      "## Signals\n\n"
      "SIGTERM, SIGINT or SIGHUP (unless ignored, as under nohup) to multi_api_server drains the "
      "fleet: new generations get 503, running ones finish whole "
      "(limit --timeout-graceful-shutdown), then everything ends. A second signal ends now. "
      "SIGTERM to one rank drains "
      "that rank; it is started again. Ranks are in process groups of their own, so that Ctrl-C "
      "reaches them once, by way "
      "of the launcher. They die with the launcher, also when that is killed.\n\n"
      "## Exit codes\n\n| Code | Meaning |\n|---|---|\n";
  for (const ExitCodeRow& row : kExitCodes) {
    out += "| " + std::to_string(row.code) + " | " + std::string(row.meaning) + " |\n";
  }
  return out;
}

}  // namespace flotilla
