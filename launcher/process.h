// Starting one child process, by Boost.Process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/fd.h"
#include "common/flags/flags.h"
#include "common/status.h"

namespace flotilla {

struct ChildCommand {
  std::string program;            // path; not searched for
  std::vector<std::string> args;  // without the program's name
  Environment environment;
  std::vector<int> affinity;  // CPUs that the process may use; empty: as this one
};

struct ChildProcess {
  pid_t pid = -1;
  UniqueFd pidfd;  // readable when the process has ended; it must then be reaped
  UniqueFd out;    // what it writes to stdout and stderr; non-blocking
  UniqueFd err;
};

// Starts the program with stdin from /dev/null and `inherited` as its only further descriptors,
// under their numbers here. The child is in a process group of its own (Ctrl-C in the terminal
// reaches only the launcher, which passes it on once) and is killed when this thread ends: call it
// on the main thread only. kNotFound or kInternal if it cannot be started.
StatusOr<ChildProcess> start_child(const ChildCommand& command, const std::vector<int>& inherited);

// Readable when the process has ended. kInternal on a kernel older than 5.3.
StatusOr<UniqueFd> open_pidfd(pid_t pid);

// Signals the process behind a pidfd, and no other: nothing happens if it has ended. (A pid can be
// wrong, stale or -1, which is every process of the machine.)
void signal_child(int pidfd, int number);

// The exit status of a child that has ended (or that this call waits for); -1 if it is none of
// ours.
int reap_child(pid_t pid);

// "exit code 3", "signal 9 (Killed)" for a wait status.
std::string describe_wait_status(int status);

}  // namespace flotilla
