#include "launcher/process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {  // glibc 2.36 forgets it
#include <sys/pidfd.h>
}

// Boost 1.86 moved this interface to a folder of its own.
#if __has_include(<boost/process/v1/child.hpp>)
#include <boost/process/v1/args.hpp>
#include <boost/process/v1/child.hpp>
#include <boost/process/v1/exe.hpp>
#include <boost/process/v1/extend.hpp>
namespace bp = boost::process::v1;
#else
#include <boost/process/args.hpp>
#include <boost/process/child.hpp>
#include <boost/process/exe.hpp>
#include <boost/process/extend.hpp>
namespace bp = boost::process;
#endif

#include <cerrno>
#include <cstring>
#include <system_error>

#include "common/exit_codes.h"

namespace flotilla {
namespace {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

StatusOr<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return errno_status("pipe");
  Pipe pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
  FLOTILLA_RETURN_IF_ERROR(set_nonblocking(pipe.read_end.get(), true));
  return pipe;
}

// Runs between fork and exec: system calls only, no memory is allocated.
struct InChild : bp::extend::handler {
  pid_t parent = 0;
  int in = -1;
  int out = -1;
  int err = -1;
  const std::vector<int>* inherited = nullptr;
  bool pinned = false;
  cpu_set_t cpus{};
  char** environment =
      nullptr;  // Boost 1.74's own environment type reads freed memory when it is filled
  pid_t* failed_pid =
      nullptr;  // Boost 1.74 forgets a child whose exec failed; it must be reaped all the same

  template <typename Executor>
  void on_setup(Executor& executor) const {
    executor.env = environment;
  }

  template <typename Executor>
  void on_exec_setup(Executor&) const {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(kExitFailure);  // it died before the line above
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    // Descriptors that this process was started with would live on in every rank.
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    for (const int fd : *inherited) fcntl(fd, F_SETFD, 0);
    if (pinned) sched_setaffinity(0, sizeof cpus, &cpus);
  }

  template <typename Executor>
  void on_error(Executor& executor, const std::error_code&) const {
    *failed_pid = executor.pid;
  }
};

}  // namespace

StatusOr<ChildProcess> start_child(const ChildCommand& command, const std::vector<int>& inherited) {
  check(gettid() == getpid(),
        "children must be started by the main thread: they die with the thread that did");
  StatusOr<Pipe> out = make_pipe();
  if (!out.ok()) return out.status();
  StatusOr<Pipe> err = make_pipe();
  if (!err.ok()) return err.status();
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null) return errno_status("open /dev/null");

  pid_t failed_pid = -1;
  InChild in_child;
  in_child.parent = getpid();
  in_child.in = null.get();
  in_child.out = out->write_end.get();
  in_child.err = err->write_end.get();
  in_child.inherited = &inherited;
  in_child.failed_pid = &failed_pid;
  for (const int cpu : command.affinity) {
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &in_child.cpus);
  }
  in_child.pinned = CPU_COUNT(&in_child.cpus) > 0;

  std::vector<std::string> assignments;
  for (const auto& [name, value] : command.environment) assignments.push_back(name + "=" + value);
  std::vector<char*> environment;
  for (std::string& assignment : assignments) environment.push_back(assignment.data());
  environment.push_back(nullptr);
  in_child.environment = environment.data();

  ChildProcess started;
  std::error_code error;
  try {
    bp::child child(bp::exe = command.program, bp::args = command.args, error, in_child);
    started.pid = child.id();
    child.detach();  // watched and reaped by pidfd
  } catch (const std::exception& e) {
    return internal_error("cannot start " + command.program + ": " + e.what());
  }
  if (error) {
    if (failed_pid > 0) reap_child(failed_pid);
    const std::string message = "cannot start " + command.program + ": " + error.message();
    return error == std::errc::no_such_file_or_directory ? not_found(message)
                                                         : internal_error(message);
  }
  check(started.pid > 1, "a started child has a pid");
  StatusOr<UniqueFd> pidfd = open_pidfd(started.pid);
  if (!pidfd.ok()) {
    kill(started.pid, SIGKILL);
    reap_child(started.pid);
    return pidfd.status();
  }
  started.pidfd = *std::move(pidfd);
  started.out = std::move(out->read_end);
  started.err = std::move(err->read_end);
  return started;
}

StatusOr<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(pidfd_open(pid, 0));
  if (!fd) return errno_status("pidfd_open (Linux 5.3 or newer is needed)");
  return fd;
}

void signal_child(int pidfd, int number) { pidfd_send_signal(pidfd, number, nullptr, 0); }

int reap_child(pid_t pid) {
  check(pid > 1, "only a single child is waited for");
  int status = -1;
  pid_t reaped;
  do {
    reaped = waitpid(pid, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  return reaped == pid ? status : -1;
}

std::string describe_wait_status(int status) {
  if (WIFEXITED(status)) return "exit code " + std::to_string(WEXITSTATUS(status));
  if (!WIFSIGNALED(status)) return "wait status " + std::to_string(status);
  const int number = WTERMSIG(status);
  return "signal " + std::to_string(number) + " (" + strsignal(number) + ")";
}

}  // namespace flotilla
