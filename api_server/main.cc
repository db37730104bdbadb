// api_server: flags → wire → serve → drain. One process, one HTTP port, one data-parallel rank.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "api_server/app.h"
#include "api_server/http/listen_socket.h"
#include "api_server/rank.h"
#include "common/exit_codes.h"
#include "common/log.h"
#include "engine/parallel/clock_presence.h"
#include "launcher/cluster_secret.h"

namespace flotilla {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBacklog = 1024;
constexpr std::chrono::seconds kFlushTime{10};  // for the last bytes of drained streams

int fail(const Status& status) {
  std::fprintf(stderr, "api_server: %s\n", status.message().c_str());
  return status.code() == StatusCode::kUnavailable ? kExitPortBusy : kExitConfig;
}

int exit_code_of(const Status& failure) {
  switch (failure.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kNotFound:
      return kExitConfig;
    case StatusCode::kFailedPrecondition:
      return kExitRefused;
    default:
      return kExitFailure;
  }
}

StatusOr<UniqueFd> listening(UniqueFd inherited, const std::string& host, int port, const char* flag) {
  if (inherited) {
    FLOTILLA_RETURN_IF_ERROR(start_listening(inherited.get(), kBacklog));
    return inherited;
  }
  StatusOr<UniqueFd> bound = listen_on(host, static_cast<uint16_t>(port));
  if (!bound.ok()) return Status(bound.status().code(), std::string(flag) + ": " + bound.status().message());
  return bound;
}

// SIGTERM and SIGINT, read from a descriptor. The first drains, the second ends now. systemd sends
// the first to every process of a service and the launcher passes its own on: one from the launcher
// and one from elsewhere are no second one.
struct Signals {
  UniqueFd fd;
  pid_t launcher;  // 0: none
  int from_launcher = 0;
  int from_others = 0;

  bool second() const { return from_launcher > 1 || from_others > 1; }
};

// Made before any thread, so that all threads block them.
Signals termination_signals(bool has_launcher) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return {.fd = UniqueFd(signalfd(-1, &set, SFD_CLOEXEC)), .launcher = has_launcher ? getppid() : 0};
}

// Waits for a signal, the engine's end or the deadline; true for a signal.
bool wait_for_signal(Signals& signals, int ended, Clock::time_point deadline) {
  pollfd fds[2] = {{signals.fd.get(), POLLIN, 0}, {ended, POLLIN, 0}};
  int timeout = -1;
  if (deadline != Clock::time_point::max()) {
    timeout = static_cast<int>(std::max<int64_t>(
        0, std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count()));
  }
  while (::poll(fds, 2, timeout) < 0 && errno == EINTR) {
  }
  if (fds[0].revents == 0) return false;
  signalfd_siginfo info;
  if (::read(signals.fd.get(), &info, sizeof info) != sizeof info) return false;
  const bool by_launcher =
      signals.launcher != 0 && static_cast<pid_t>(info.ssi_pid) == signals.launcher;
  ++(by_launcher ? signals.from_launcher : signals.from_others);
  return true;
}

struct Servers {
  HttpServer main;
  std::unique_ptr<HttpServer> probes;
};

// Until the engine is drained or a second signal or the limit ends it. The exit code.
int drain(App& app, Engine& engine, Servers& servers, QueueServer* queue, const ServerFlags& flags, Signals& signals, int ended) {
  log_info("draining", {{"running", engine.load().running}});
  app.serving.begin_drain();
  engine.begin_drain();
  servers.main.begin_drain();
  const auto limit = flags.timeout_graceful_shutdown;
  const auto deadline = limit.count() > 0 ? Clock::now() + limit : Clock::time_point::max();
  while (wait_for_signal(signals, ended, deadline) && !signals.second()) {
  }
  const bool in_time = !signals.second() && engine.drained();
  const auto flushed_by = in_time ? Clock::now() + kFlushTime : Clock::now();
  bool whole = servers.main.stop(flushed_by);
  if (queue != nullptr) whole &= queue->finish(flushed_by);
  if (servers.probes) servers.probes->stop(Clock::now());
  log_info("drained", {{"streams_cut", !whole}});
  return whole ? kExitOk : kExitStreamsCut;
}

int serve(const ServerFlags& flags, InheritedFds inherited, const Environment& environment, Clock::time_point process_start) {
  Signals signals = termination_signals(!flags.clock_address.empty());
  MetricsRegistry registry(metric_labels(flags));
  EngineMetrics engine_metrics(&registry);
  StatusOr<UniqueFd> http = listening(std::move(inherited.http), flags.host, flags.port, "--port");
  if (!http.ok()) return fail(http.status());
  const bool own_metrics_port = inherited.metrics || (flags.metrics_port && *flags.metrics_port != flags.port);
  StatusOr<UniqueFd> metrics = own_metrics_port ? listening(std::move(inherited.metrics), flags.host, flags.metrics_port.value_or(0), "--metrics-port")
                                                : StatusOr<UniqueFd>(UniqueFd());
  if (!metrics.ok()) return fail(metrics.status());
  std::string secret = inherited.cluster_secret;
  if (secret.empty()) {
    StatusOr<std::string> found = find_cluster_secret(flags.cluster_secret_file, environment);
    if (!found.ok()) return fail(found.status());
    secret = std::move(*found);
  }

  StatusOr<TextTools> text = load_text_tools(flags);
  if (!text.ok()) return fail(text.status());
  StatusOr<std::unique_ptr<Engine>> made = make_engine(flags, *text, secret, &engine_metrics, process_start);
  if (!made.ok()) return fail(made.status());
  Engine& engine = **made;
  StatusOr<std::unique_ptr<QueueServer>> queue = start_queue_port(flags, std::move(inherited.queue), secret, engine);
  if (!queue.ok()) return fail(queue.status());

  LocalDispatcher dispatcher(engine, Rank(flags.local_data_parallel_id), flags.data_parallel_size);
  App app({.dispatcher = dispatcher,
           .tokenizer = flags.headless ? nullptr : text->tokenizer.get(),
           .chat_template = text->chat_template.get(),
           .defaults = text->defaults,
           .registry = registry},
          {.serving = {.model = flags.model,
                       .served_model_names = flags.served_model_names,
                       .max_n = flags.max_n,
                       .max_logprobs = flags.max_logprobs,
                       .max_concurrency = flags.max_concurrency,
                       .max_waiting_time = flags.max_queue_wait,
                       .reasoning_parser = flags.reasoning_parser,
                       .seed = flags.seed,
                       .config_info = config_info(flags)},
           .api_keys = flags.api_keys,
           .allowed_origins = flags.allowed_origins});
  registry.on_export([&] { engine_metrics.show_load(engine.load(), engine.health()); });

  HttpServerOptions main_options = app_http_options(&app);
  main_options.limits.max_body_bytes = static_cast<size_t>(flags.max_body_bytes);
  Servers servers{HttpServer(std::move(main_options)), nullptr};
  if (flags.headless) {
    register_probe_routes(servers.main, app);
  } else {
    register_routes(servers.main, app);
  }
  export_http_counters(&registry, &servers.main, "main");
  if (*metrics) {
    servers.probes = std::make_unique<HttpServer>(probe_http_options(&app));
    register_probe_routes(*servers.probes, app);
    if (const Status status = servers.probes->start(std::move(*metrics)); !status.ok()) return fail(status);
  }
  if (const Status status = servers.main.start(std::move(*http)); !status.ok()) return fail(status);
  log_info("listening", {{"port", servers.main.port()}, {"metrics_port", servers.probes ? servers.probes->port() : servers.main.port()}});

  WakeFd ended;
  auto* rank = dynamic_cast<RankEngine*>(&engine);
  std::atomic<bool> clock_lost{false};
  std::unique_ptr<ClockPresence> presence;
  if (rank != nullptr) {
    rank->front_is_up();
  } else if (!flags.clock_address.empty()) {
    StatusOr<std::unique_ptr<ClockPresence>> started = ClockPresence::start(
        {.clock_socket = unix_path(flags.clock_address),
         .rank = Rank(flags.local_data_parallel_id),
         .process_start = process_start,
         .on_fleet_draining = [&] { engine.begin_drain(); },
         .on_end = [&](const std::string& why) {
           log_error("step_clock_lost", {{"why", why}});
           clock_lost = true;
           ended.wake();
         }});
    if (!started.ok()) return fail(started.status());
    presence = std::move(*started);
  }
  std::thread watcher([&] {
    while (rank != nullptr ? !rank->wait_ended(Clock::now() + std::chrono::hours(1))
                           : !engine.wait_drained(Clock::now() + std::chrono::hours(1))) {
    }
    ended.wake();
  });

  int code = kExitOk;
  const bool told = wait_for_signal(signals, ended.fd(), Clock::time_point::max());
  if (!told && (clock_lost || engine.health().state == EngineState::kFailed)) {
    code = rank != nullptr ? exit_code_of(rank->failure()) : kExitFailure;
    std::fprintf(stderr, "api_server: %s\n", engine.health().detail.c_str());
    servers.main.stop(Clock::now());
  } else {
    code = drain(app, engine, servers, queue->get(), flags, signals, ended.fd());
  }
  queue->reset();
  engine.begin_drain();
  engine.stop();
  watcher.join();
  return code;
}

int run(const std::vector<std::string>& args) {
  const auto process_start = Clock::now();
  StatusOr<InheritedFds> inherited = take_inherited_fds();
  if (!inherited.ok()) return fail(inherited.status());
  if (const std::optional<std::string> info = server_flags_info(args)) {
    std::fputs(info->c_str(), stdout);
    return kExitOk;
  }
  const Environment environment = current_environment();
  const StatusOr<ServerFlags> flags = parse_server_flags(args, environment);
  if (!flags.ok()) return fail(flags.status());
  configure_logging({.level = flags->log_level,
                     .json = flags->log_json,
                     .rank = flags->data_parallel_size > 1 ? flags->local_data_parallel_id : -1,
                     .component = "api_server"});
  log_info("start", {{"version", FLOTILLA_VERSION}, {"flags", flags->non_default}});
  for (const std::string& note : flags->notes) log_info("flag_note", {{"text", note}});
  for (const std::string& warning : flags->warnings) log_warn("warning", {{"text", warning}});
  if (flags->data_parallel_size > 1 && flags->clock_address.empty()) {
    return fail(unimplemented("--data-parallel-size " + std::to_string(flags->data_parallel_size) +
                              ": one front end over several ranks is not in this version; multi_api_server starts one api_server per rank"));
  }
  return serve(*flags, std::move(*inherited), environment, process_start);
}

}  // namespace
}  // namespace flotilla

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  return flotilla::run(std::vector<std::string>(argv + 1, argv + argc));
}
