#include "tools/bench/engine/clock_bench.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "common/crypto.h"
#include "common/log.h"
#include "engine/parallel/clock_client.h"
#include "engine/parallel/group_session.h"
#include "launcher/step_clock_server.h"

namespace flotilla::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kWarmUp = 1000;

struct NoEvents final : FleetEvents {
  void on_progress(Rank, pid_t, std::string, double) override {}
  void on_serving(Rank, pid_t, double) override {}
  void on_hung(Rank, pid_t, std::string) override {}
  void on_refused(Rank, pid_t, std::string) override {}
};

// One rank's protocol without a model: it joins at once and wants a token in every step. `micros`
// [steps].
Status run_rank(const std::string& socket,
                int32_t rank,
                const ClockBenchOptions& options,
                float* micros) {
  StatusOr<std::unique_ptr<ClockClient>> connected = ClockClient::connect(socket);
  if (!connected.ok()) return connected.status();
  ClockClient& client = **connected;
  Status sent;
  GroupSession session(Rank(rank), [&](const wire::ToClock& m) { sent = client.send(m); });
  wire::ToClock message;
  message.mutable_hello()->set_rank(rank);
  message.mutable_hello()->set_expert_parallel(true);
  FLOTILLA_RETURN_IF_ERROR(client.send(message));
  message.Clear();
  message.mutable_loaded();
  FLOTILLA_RETURN_IF_ERROR(client.send(message));
  int32_t step = -kWarmUp;
  Clock::time_point wanted;
  while (step < options.steps) {
    pollfd readable{client.fd(), POLLIN, 0};
    ::poll(&readable, 1, -1);
    StatusOr<std::vector<wire::FromClock>> received = client.receive();
    if (!received.ok()) return received.status();
    for (const wire::FromClock& m : *received) {
      if (m.has_group()) {
        session.on_group(m.group(), Clock::now());
        session.begin_join();
        session.on_joined(ok_status(), Clock::now());
      } else if (!m.has_go() || !session.on_go(m.go())) {
        continue;
      } else if (++step > 0) {
        micros[step - 1] = std::chrono::duration<float, std::micro>(Clock::now() - wanted).count();
      }
      wanted = Clock::now();
      session.want(0, 1, wanted);
      if (!sent.ok()) return sent;
    }
  }
  return ok_status();
}

}  // namespace

StatusOr<std::vector<double>> bench_clock(const ClockBenchOptions& options) {
  configure_logging({.level = LogLevel::kWarn});
  const std::filesystem::path dir =
      std::filesystem::temp_directory_path() / ("flotilla-clock-" + to_hex(random_bytes(6)));
  std::filesystem::create_directory(dir);
  const std::string socket = dir / "clock.sock";
  const size_t per_rank = static_cast<size_t>(options.steps) + kWarmUp;
  const size_t bytes = per_rank * static_cast<size_t>(options.ranks) * sizeof(float);
  // Shared with the processes that measure.
  auto* micros = static_cast<float*>(
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (micros == MAP_FAILED) return errno_status("mmap");

  std::vector<pid_t> children;
  if (options.processes) {  // before the server's thread exists
    for (int32_t r = 0; r < options.ranks; ++r) {
      const pid_t pid = ::fork();
      if (pid < 0) return errno_status("fork");
      if (pid == 0) {
        while (!std::filesystem::exists(socket)) ::usleep(1000);
        ::_exit(run_rank(socket, r, options, micros + static_cast<size_t>(r) * per_rank).ok() ? 0
                                                                                              : 1);
      }
      children.push_back(pid);
    }
  }
  NoEvents events;
  StatusOr<std::unique_ptr<StepClockServer>> server =
      StepClockServer::start(socket, {.num_ranks = options.ranks}, events);
  if (!server.ok()) return server.status();
  bool failed = false;
  if (options.processes) {
    for (const pid_t pid : children) {
      int code = 0;
      ::waitpid(pid, &code, 0);
      failed |= code != 0;
    }
  } else {
    std::vector<std::thread> threads;
    for (int32_t r = 0; r < options.ranks; ++r) {
      threads.emplace_back([&, r] {
        (void)run_rank(socket, r, options, micros + static_cast<size_t>(r) * per_rank);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  server->reset();
  std::filesystem::remove_all(dir);
  std::vector<double> all;
  for (int32_t r = 0; r < options.ranks; ++r) {
    const float* mine = micros + static_cast<size_t>(r) * per_rank;
    all.insert(all.end(), mine, mine + options.steps);
  }
  ::munmap(micros, bytes);
  // The ranks that finish first leave; the last steps of the others are not measured, which makes
  // their process fail.
  if (failed && std::count(all.begin(), all.end(), 0.0) > options.ranks)
    return internal_error("a rank lost the clock");
  std::erase(all, 0.0);
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace flotilla::bench
