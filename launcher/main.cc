// multi_api_server: flags → plan → ports → run. See plan.h for what is decided and supervisor.h for
// what happens then.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "common/exit_codes.h"
#include "common/log.h"
#include "launcher/console.h"
#include "launcher/fleet.h"
#include "launcher/run_dir.h"

namespace flotilla {
namespace {

namespace fs = std::filesystem;

int usage_error(const Status& status) {
  std::string text = status.message();
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 1)
    text.insert(at + 1, "multi_api_server: ");
  std::fprintf(stderr, "multi_api_server: %s\n", text.c_str());
  return status.code() == StatusCode::kUnavailable ? kExitPortBusy : kExitConfig;
}

StatusOr<std::string> find_api_server() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const std::string path = (self.parent_path() / "api_server").string();
  if (error || access(path.c_str(), X_OK) != 0) {
    return not_found("cannot find api_server next to multi_api_server (" + path +
                     "); build or install both together");
  }
  return path;
}

StatusOr<PlanInput> plan_input(const LauncherFlags& launcher,
                               const ServerFlags& server,
                               const Environment& environment) {
  PlanInput input;
  input.launcher = launcher;
  input.server = server;
  input.machine = read_machine(allowed_cpus());
  StatusOr<std::string> program = find_api_server();
  if (!program.ok()) return program.status();
  input.program = *std::move(program);
  input.run_dir = RunDir::pattern(environment);
  std::error_code ignored;
  if (server.engine == EngineKind::kModel && !launcher.dry_run &&
      !fs::is_directory(server.model, ignored)) {
    return invalid_argument("--model: " + server.model +
                            " is no folder here; expected one with config.json and *.safetensors");
  }
  if (server.engine == EngineKind::kModel && server.load_choice == LoadChoice::kDefault) {
    // A model that cannot be read is for the ranks to refuse, with all they know of it.
    if (const StatusOr<ModelSizes> sizes = read_model_sizes(server.model); sizes.ok())
      input.sizes = *sizes;
  }
  return input;
}

void log_start(const LauncherFlags& launcher, const ServerFlags& server, const Plan& plan) {
  log_info("start",
           {{"version", FLOTILLA_VERSION},
            {"ranks", plan.ranks.size()},
            {"flags", launcher.non_default},
            {"api_server_flags", server.non_default}});
  for (const auto* notes : {&launcher.notes, &server.notes}) {
    for (const std::string& note : *notes) log_info("flag_note", {{"text", note}});
  }
  for (const auto* warnings : {&launcher.warnings, &server.warnings, &plan.warnings}) {
    for (const std::string& warning : *warnings) log_warn("warning", {{"text", warning}});
  }
}

int run(const std::vector<std::string>& args) {
  const Environment environment = current_environment();
  if (const std::optional<std::string> info = launcher_flags_info(args)) {
    std::fputs(info->c_str(), stdout);
    return kExitOk;
  }
  const StatusOr<LauncherFlags> launcher = parse_launcher_flags(args, environment);
  if (!launcher.ok()) return usage_error(launcher.status());
  Environment server_environment = environment;
  for (const std::string& flag : flags_set_by_launcher())
    server_environment.erase(flag_environment_name(flag));
  const StatusOr<ServerFlags> server =
      parse_server_flags(launcher->server_args, server_environment, ServerFlagsUse::kLauncher);
  if (!server.ok()) return usage_error(server.status());
  StatusOr<PlanInput> input = plan_input(*launcher, *server, environment);
  if (!input.ok()) return usage_error(input.status());

  if (launcher->dry_run) {
    StatusOr<Plan> plan = make_plan(*input);
    if (!plan.ok()) return usage_error(plan.status());
    for (const auto* warnings : {&launcher->warnings, &server->warnings}) {
      plan->warnings.insert(plan->warnings.end(), warnings->begin(), warnings->end());
    }
    std::fputs((launcher->json ? plan_json(*plan) : plan_table(*plan)).c_str(), stdout);
    return kExitOk;
  }

  StatusOr<RunDir> run_dir = RunDir::create(environment);
  if (!run_dir.ok()) return usage_error(run_dir.status());
  input->run_dir = run_dir->path();
  StatusOr<Plan> plan = make_plan(*input);
  if (!plan.ok()) return usage_error(plan.status());
  StatusOr<std::vector<RankSockets>> sockets = bind_ports(&*plan);
  if (!sockets.ok()) return usage_error(sockets.status());

  Console console;
  configure_logging(
      {.level = launcher->log_level,
       .json = launcher->log_json,
       .component = "launcher",
       .write = [&console](std::string line) { console.write(OutputStream::kErr, line + "\n"); }});
  log_start(*launcher, *server, *plan);
  const int code =
      run_fleet(*plan, *std::move(sockets), {*launcher, *server, environment}, &console);
  log_info("end", {{"exit_code", code}});
  configure_logging({});
  return code;
}

}  // namespace
}  // namespace flotilla

int main(int argc, char** argv) {
  // A closed standard descriptor would be taken by the first socket, and written to.
  int fd;
  do {
    fd = open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  close(fd);
  signal(SIGPIPE, SIG_IGN);
  return flotilla::run(std::vector<std::string>(argv + 1, argv + argc));
}
