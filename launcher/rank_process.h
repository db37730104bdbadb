// One process of a rank, from start to end: its output is tagged and logged line by line, its end
// is seen and reaped. Threads: the io_context's (the main thread) only.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/ids.h"
#include "launcher/console.h"
#include "launcher/log_file.h"
#include "launcher/process.h"

namespace boost::asio {
class io_context;
}

namespace flotilla {

class RankProcess {
 public:
  // Gets the wait status, once, after all output has been passed on.
  using OnExit = std::function<void(int wait_status)>;

  // `console` and `log` (may be null) must outlive the process.
  static StatusOr<std::unique_ptr<RankProcess>> start(boost::asio::io_context& io,
                                                      Rank rank,
                                                      const ChildCommand& command,
                                                      const std::vector<int>& inherited,
                                                      Console* console,
                                                      LogFile* log,
                                                      OnExit on_exit);
  // A process that has not ended is killed and reaped.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  pid_t pid() const;
  void signal(int number);
  // What it wrote last, oldest first; at most ten lines.
  const std::deque<std::string>& last_lines() const;

 private:
  struct Session;
  explicit RankProcess(std::shared_ptr<Session> session);
  std::shared_ptr<Session> session_;  // shared with pending reads
};

}  // namespace flotilla
