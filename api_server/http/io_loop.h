// One I/O thread: an epoll set, the connections in it, their deadlines, and a mailbox for what
// other threads have for it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <queue>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "api_server/http/connection.h"
#include "api_server/http/http_core.h"
#include "api_server/http/io_mailbox.h"

namespace flotilla {

class HttpIoLoop {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit HttpIoLoop(HttpCore& core);

  // Before start(): this loop accepts, and spreads connections over all loops.
  void listen_on(UniqueFd listening_socket);
  void start();
  void join() { thread_.join(); }
  const std::shared_ptr<IoMailbox>& mailbox() const { return mailbox_; }

  // For its connections, on its thread.
  HttpCore& core() { return core_; }
  TimePoint now() const { return now_; }                  // of this turn
  std::array<char, 64 << 10>& input() { return input_; }  // scratch, good until the next read
  std::string& output() { return output_; }               // scratch, good until the next write
  // on_timer(when) is called then. There is no taking back: a connection knows which of its timers
  // counts.
  void watch_deadline(uint64_t id, TimePoint when) { timers_.push({when, id}); }
  // on_turn() is called after others had their turn.
  void take_turn_later(uint64_t id) { turns_.push_back(id); }
  // The connection is destroyed at the end of this turn.
  void remove(uint64_t id);

 private:
  struct Timer {
    TimePoint when;
    uint64_t id;
    bool operator>(const Timer& other) const { return when > other.when; }
  };

  void run();
  int wait_ms() const;
  void read_mailbox();
  void obey(IoCommand command);
  void fire_timers();
  void accept_some();
  void pause_accepting();
  void place(UniqueFd socket, std::string remote_address);
  void give_to(HttpIoLoop& loop, UniqueFd socket, std::string remote_address);
  void adopt(UniqueFd socket, std::string remote_address);
  HttpConnection* find(uint64_t id);
  HttpConnection* longest_idle();

  HttpCore& core_;
  const std::shared_ptr<IoMailbox> mailbox_ = std::make_shared<IoMailbox>();
  UniqueFd epoll_;
  UniqueFd listener_;
  bool accept_paused_ = false;
  std::atomic<size_t> num_connections_{0};  // read by the accepting loop
  uint64_t next_id_;
  bool stopping_ = false;
  TimePoint now_{};
  std::unordered_map<uint64_t, std::unique_ptr<HttpConnection>> connections_;
  std::vector<std::unique_ptr<HttpConnection>> removed_;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::vector<uint64_t> turns_;
  std::vector<IoCommand> commands_;          // swapped with the mailbox's
  std::vector<ResponseStreamHandle> woken_;  // likewise
  std::array<char, 64 << 10> input_;
  std::string output_;
  std::thread thread_;
};

}  // namespace flotilla
