// Owned file descriptors and the few system calls around them. All descriptors made here are
// close-on-exec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "common/status.h"

namespace flotilla {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// Wakes a thread that polls `fd()`. Threads: any.
class WakeFd {
 public:
  WakeFd();
  int fd() const { return fd_.get(); }
  void wake();
  // Takes all wakes so far; never blocks.
  void drain();

 private:
  UniqueFd fd_;
};

Status set_nonblocking(int fd, bool on);
Status set_close_on_exec(int fd, bool on);
// Reads exactly the whole of `out`; kUnavailable at end of file.
Status read_exactly(int fd, std::span<std::byte> out);
// Writes everything to a blocking descriptor; never raises SIGPIPE on sockets.
Status write_fully(int fd, std::span<const std::byte> data);
// Whole file, at most `max_bytes`: kNotFound, or kInvalidArgument when it is larger.
StatusOr<std::string> read_file(const std::string& path, size_t max_bytes);

}  // namespace flotilla
