// The launcher's stdout and stderr, written by a thread of their own: a terminal that is stopped,
// or a pipe that nobody reads, holds up no supervision. Lines beyond a bound are dropped and
// counted. On a terminal a few status lines stay below the log and are rewritten in place.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace flotilla {

enum class OutputStream { kOut, kErr };

struct ConsoleOptions {
  int out_fd = 1;
  int err_fd = 2;
  size_t max_queued_bytes = 8u << 20;
};

// Threads: any. After a fork nothing of it may be used in the child.
class Console {
 public:
  explicit Console(const ConsoleOptions& options = {});
  // Waits up to two seconds for what is queued; if a write is stuck then, the rest is lost.
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // stdout is a terminal: status lines are shown.
  bool is_terminal() const;
  // Whole lines, line ends included.
  void write(OutputStream stream, std::string lines);
  // Replaces the status lines; none takes them away. Ignored when stdout is no terminal.
  void set_status(std::vector<std::string> lines);

 private:
  struct State;
  std::shared_ptr<State>
      state_;  // shared with the thread, which may be stuck in a write when this object ends
};

}  // namespace flotilla
