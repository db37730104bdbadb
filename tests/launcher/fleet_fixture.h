// A supervisor over fake ranks. The supervisor runs on the test's (main) thread; the test's story
// runs beside it and waits for lines of output, with a deadline instead of sleeps.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/log.h"
#include "launcher/console.h"
#include "launcher/inherited.h"
#include "launcher/supervisor.h"

namespace flotilla {

// Everything that arrives on a descriptor, line by line.
class LineReader {
 public:
  explicit LineReader(int fd, std::function<void(const std::string&)> on_line = {})
      : on_line_(std::move(on_line)), thread_([this, fd] { run(fd); }) {}
  ~LineReader() { thread_.join(); }  // when the other end is closed

  // Waits until `count` lines hold `part`; false after 30 s.
  bool wait_for(const std::string& part, size_t count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(
        lock, std::chrono::seconds(30), [&] { return count_locked(part) >= count; });
  }
  size_t count(const std::string& part) {
    std::unique_lock lock(mutex_);
    return count_locked(part);
  }
  std::vector<std::string> lines() {
    std::unique_lock lock(mutex_);
    return lines_;
  }

 private:
  size_t count_locked(const std::string& part) const {
    size_t n = 0;
    for (const std::string& line : lines_) n += line.find(part) != std::string::npos ? 1 : 0;
    return n;
  }

  void run(int fd) {
    std::string rest;
    char buffer[4096];
    while (true) {
      const ssize_t n = ::read(fd, buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      rest.append(buffer, static_cast<size_t>(n));
      for (size_t end; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) {
        const std::string line = rest.substr(0, end);
        if (on_line_) on_line_(line);
        std::unique_lock lock(mutex_);
        lines_.push_back(line);
      }
      changed_.notify_all();
    }
    ::close(fd);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  const std::function<void(const std::string&)> on_line_;
  std::thread thread_;
};

struct PipeEnds {
  int read_end;
  int write_end;
};
inline PipeEnds open_pipe() {
  int fds[2];
  REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
  return {fds[0], fds[1]};
}

enum class Serves { kWhenUp, kAtStart, kNever };

// Plays the step clock: says that a rank serves when it prints that it is up, unless told
// otherwise.
class FakeClock : public FleetListener {
 public:
  void on_rank_started(Rank rank, pid_t pid) override {
    {
      std::unique_lock lock(mutex_);
      pids_[rank.value] = pid;
      pidfds_[rank.value] = open_pidfd(pid).value();
      ++starts_[rank.value];
      changed_.notify_all();
    }
    if (started) started(rank, pid);
    if (serves == Serves::kAtStart && events != nullptr) events->on_serving(rank, pid, 0.5);
  }
  void on_rank_exited(Rank rank, pid_t pid, const std::string& how) override {
    if (exited) exited(rank);
    std::unique_lock lock(mutex_);
    exits_.push_back("rank " + std::to_string(rank.value) + " " + how);
    if (pids_[rank.value] == pid) {
      pids_.erase(rank.value);
      pidfds_.erase(rank.value);
    }
    changed_.notify_all();
  }
  // "[rank 1] up 4711"
  void on_output(const std::string& line) {
    int rank = -1;
    int pid = -1;
    if (serves != Serves::kWhenUp || std::sscanf(line.c_str(), "[rank %d] up %d", &rank, &pid) != 2)
      return;
    std::unique_lock lock(mutex_);
    if (events != nullptr) events->on_serving(Rank(rank), pid, 0.5);
  }
  // The supervisor is about to end: output that comes later tells nobody.
  void detach() {
    std::unique_lock lock(mutex_);
    events = nullptr;
  }
  void on_fleet_draining() override {
    std::unique_lock lock(mutex_);
    ++drains_;
  }

  // Of the running process; fails the test if there is none. For comparing and for /proc, not for
  // kill(): see signal().
  pid_t pid(int rank) {
    std::unique_lock lock(mutex_);
    const auto found = pids_.find(rank);
    CHECK_MESSAGE(found != pids_.end(), "the rank does not run");
    return found == pids_.end() ? getpid() : found->second;
  }
  // Signals the rank's process through its pidfd: no other process can be hit, whatever the test
  // gets wrong.
  void signal(int rank, int number) {
    std::unique_lock lock(mutex_);
    const auto found = pidfds_.find(rank);
    CHECK_MESSAGE(found != pidfds_.end(), "the rank does not run");
    if (found != pidfds_.end()) signal_child(found->second.get(), number);
  }
  bool wait_for_start(int rank, int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(
        lock, std::chrono::seconds(240), [&] { return starts_[rank] >= count; });
  }
  bool wait_for_exits(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(
        lock, std::chrono::seconds(30), [&] { return exits_.size() >= count; });
  }
  int starts(int rank) {
    std::unique_lock lock(mutex_);
    return starts_[rank];
  }
  std::vector<std::string> exits() {
    std::unique_lock lock(mutex_);
    return exits_;
  }
  int drains() {
    std::unique_lock lock(mutex_);
    return drains_;
  }

  FleetEvents* events = nullptr;
  Serves serves = Serves::kWhenUp;
  // On the supervisor's thread; exited() before the rank's ports are bound again.
  std::function<void(Rank, pid_t)> started;
  std::function<void(Rank)> exited;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, pid_t> pids_;
  std::map<int, UniqueFd> pidfds_;
  std::map<int, int> starts_;
  std::vector<std::string> exits_;
  int drains_ = 0;
};

using Args = std::vector<std::string>;

class Fleet {
 public:
  // One fake rank per list of arguments. Deaths count as early only until a rank is ready.
  explicit Fleet(const std::vector<Args>& ranks) {
    options.restart = {.early_window = std::chrono::milliseconds(0),
                       .backoff_first = std::chrono::milliseconds(1),
                       .backoff_max = std::chrono::milliseconds(2)};
    options.port_retry = std::chrono::milliseconds(20);
    options.handle_signals = false;
    for (size_t i = 0; i < ranks.size(); ++i) {
      SupervisedRank rank;
      rank.rank = Rank(static_cast<int32_t>(i));
      rank.command.program = FLOTILLA_FAKE_RANK;
      rank.command.args = ranks[i];
      rank.command.args.insert(rank.command.args.end(),
                               {"--local-data-parallel-id", std::to_string(i)});
      rank.command.environment = current_environment();
      specs.push_back(std::move(rank));
    }
  }

  // Gives every rank an HTTP port.
  void bind_http() {
    for (SupervisedRank& rank : specs) {
      rank.http =
          PortRequest{.host = "127.0.0.1", .port = 0, .flag = "--ports", .rank = rank.rank.value};
      rank.sockets.http = bind_port(*rank.http).value();
      rank.http->port = bound_port(rank.sockets.http.get()).value();
      rank.url = "http://127.0.0.1:" + std::to_string(rank.http->port);
    }
  }
  int port(int rank) const { return ports_[static_cast<size_t>(rank)]; }

  // Runs the fleet to its end, `story` beside it. The story must end the fleet (drain()) unless the
  // fleet ends by itself.
  int run(const std::function<void()>& story) {
    for (const SupervisedRank& rank : specs) ports_.push_back(rank.http ? rank.http->port : 0);
    const PipeEnds out_pipe = open_pipe();
    const PipeEnds err_pipe = open_pipe();
    LineReader out_reader(out_pipe.read_end,
                          [this](const std::string& line) { clock.on_output(line); });
    LineReader err_reader(err_pipe.read_end);
    out = &out_reader;
    err = &err_reader;
    int code = -1;
    {
      Console console({.out_fd = out_pipe.write_end, .err_fd = err_pipe.write_end});
      configure_logging(
          {.write = [&](std::string line) { console.write(OutputStream::kErr, line + "\n"); }});
      Supervisor fleet(options, std::move(specs), &console);
      supervisor = &fleet;
      clock.events = &fleet;
      std::thread teller([&] { story(); });
      code = fleet.run(&clock);
      teller.join();
      clock.detach();
      configure_logging({});
    }
    ::close(out_pipe.write_end);
    ::close(err_pipe.write_end);
    return code;
  }

  SupervisorOptions options;
  std::vector<SupervisedRank> specs;
  FakeClock clock;
  Supervisor* supervisor = nullptr;
  LineReader* out = nullptr;
  LineReader* err = nullptr;

 private:
  std::vector<int> ports_;
};

// A connection to 127.0.0.1; empty if it is refused.
inline UniqueFd connect_to(int port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fd.reset();
  return fd;
}

inline std::string read_line_from(int fd) {
  std::string line;
  char c;
  while (::read(fd, &c, 1) == 1 && c != '\n') line += c;
  return line;
}

}  // namespace flotilla
