// A rank without a model, for tests of the launcher: takes its sockets as api_server does and
// behaves as its arguments say.
//   --listen           answers every connection to its HTTP socket with "rank <n>\n"
//   --say TEXT         prints TEXT and a line end on stdout; \n within TEXT is a line end, a last
//   \c means no line end
//   --err TEXT         the same on stderr
//   --report           prints what it inherited: descriptors, environment names, CPUs, process
//   group, parent
//   --quiet            does not print "up <pid>" when it is
//   --exit N           ends with that code; --die N: by that signal
//   --on-term MODE     drain (default): exit 0; streams: the first signal is survived, the second
//   exits with kExitStreamsCut;
//                      cut: exits with kExitStreamsCut; deaf: survives both; crash: abort
// The words of the variable FAKE_RANK_ARGS are read first. Other flags are taken for api_server's
// and ignored, but
// --local-data-parallel-id names the rank and --clock-address is where it says hello, that it loads
// and that it serves.
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "common/exit_codes.h"
#include "common/wire/clock.pb.h"
#include "common/wire/frame.h"
#include "launcher/inherited.h"

extern char** environ;

namespace flotilla {
namespace {

void say(FILE* to, std::string text) {
  for (size_t at; (at = text.find("\\n")) != std::string::npos;) text.replace(at, 2, "\n");
  if (text.ends_with("\\c")) {
    text.resize(text.size() - 2);
  } else {
    text += '\n';
  }
  std::fwrite(text.data(), 1, text.size(), to);
  std::fflush(to);
}

void report(const InheritedFds& fds) {
  std::string open;
  if (DIR* dir = opendir("/proc/self/fd")) {
    while (const dirent* entry = readdir(dir)) {
      const int fd = std::atoi(entry->d_name);
      if (entry->d_name[0] == '.' || fd == dirfd(dir)) continue;
      if (fd == fds.http.get() || fd == fds.metrics.get() || fd == fds.queue.get()) continue;
      open += std::string(" ") + entry->d_name;
    }
    closedir(dir);
  }
  std::printf("fds%s\n", open.c_str());
  for (char** entry = environ; *entry != nullptr; ++entry) std::printf("env %s\n", *entry);
  cpu_set_t cpus;
  sched_getaffinity(0, sizeof cpus, &cpus);
  std::printf("cpus %d first %d\n", CPU_COUNT(&cpus), CPU_ISSET(0, &cpus) ? 0 : -1);
  std::printf("group %s\n", getpgrp() == getpid() ? "own" : "shared");
  std::printf("parent %d\n", getppid());
  std::printf("secret %zu\n", fds.cluster_secret.size());
  std::fflush(stdout);
}

void serve(int fd, const std::string& rank) {
  while (true) {
    const int connection = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) continue;
    const std::string answer = "rank " + rank + "\n";
    ::send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
    // Kept open: a killed rank leaves connections behind.
  }
}

void tell_clock(const std::string& address, int rank) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::strncpy(to.sun_path, address.c_str() + sizeof "unix:" - 1, sizeof to.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);  // open until the process ends
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    std::perror("the step clock does not answer");
    std::_Exit(kExitFailure);
  }
  std::string out;
  wire::ToClock message;
  message.mutable_hello()->set_rank(rank);
  message.mutable_hello()->set_pid(getpid());
  message.mutable_hello()->set_instance_id(std::to_string(getpid()));
  append_frame(&out, message);
  message.mutable_load_progress()->set_stage("loading");
  message.mutable_load_progress()->set_fraction(0.37);
  append_frame(&out, message);
  message.mutable_serving()->set_seconds(0.5);
  append_frame(&out, message);
  if (!write_fully(fd, std::as_bytes(std::span(out))).ok()) std::_Exit(kExitFailure);
}

int run(int argc, char** argv) {
  std::vector<std::string> args;
  if (const char* more = std::getenv("FAKE_RANK_ARGS")) {
    std::istringstream words(more);
    for (std::string word; words >> word;) args.push_back(word);
  }
  args.insert(args.end(), argv + 1, argv + argc);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  StatusOr<InheritedFds> fds = take_inherited_fds();
  if (!fds.ok()) {
    std::fprintf(stderr, "%s\n", fds.status().message().c_str());
    return kExitConfig;
  }
  std::string on_term = "drain";
  std::string rank = "?";
  bool quiet = false;
  std::string clock;
  for (size_t i = 0; i + 1 < args.size(); ++i) {
    if (args[i] == "--local-data-parallel-id") rank = args[i + 1];
    if (args[i] == "--clock-address") clock = args[i + 1];
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& flag = args[i];
    const std::string value = i + 1 < args.size() ? args[i + 1] : "";
    if (flag == "--say") say(stdout, value);
    if (flag == "--err") say(stderr, value);
    if (flag == "--report") report(*fds);
    if (flag == "--quiet") quiet = true;
    if (flag == "--on-term") on_term = value;
    if (flag == "--exit") return std::atoi(value.c_str());
    if (flag == "--die") {
      signal(std::atoi(value.c_str()), SIG_DFL);
      raise(std::atoi(value.c_str()));
    }
    if (flag == "--listen") {
      if (!start_listening(fds->http.get(), 16).ok()) return kExitFailure;
      std::thread(serve, fds->http.get(), rank).detach();
      say(stdout, "listening on " + std::to_string(bound_port(fds->http.get()).value()));
    }
  }
  if (!clock.empty()) tell_clock(clock, std::atoi(rank.c_str()));
  if (!quiet) say(stdout, "up " + std::to_string(getpid()));
  int signals = 0;
  while (true) {
    int number = 0;
    sigwait(&stop, &number);
    ++signals;
    if (on_term == "drain") return kExitOk;
    if (on_term == "cut") return kExitStreamsCut;
    if (on_term == "crash") std::abort();
    if (on_term == "streams" && signals == 2) return kExitStreamsCut;
    say(stdout, "got signal " + std::to_string(signals));
  }
}

}  // namespace
}  // namespace flotilla

int main(int argc, char** argv) { std::_Exit(flotilla::run(argc, argv)); }
