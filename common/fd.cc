#include "common/fd.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace flotilla {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0 && fd_ != fd) ::close(fd_);
  fd_ = fd;
}

WakeFd::WakeFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  check(static_cast<bool>(fd_), "eventfd failed: out of descriptors (raise ulimit -n)");
}

void WakeFd::wake() {
  const uint64_t one = 1;
  // EAGAIN means the counter is at its limit: the reader is awake anyway.
  [[maybe_unused]] const ssize_t n = ::write(fd_.get(), &one, sizeof one);
}

void WakeFd::drain() {
  uint64_t count;
  [[maybe_unused]] const ssize_t n = ::read(fd_.get(), &count, sizeof count);
}

namespace {

Status set_flag(int fd, int get, int set, int flag, bool on) {
  const int flags = ::fcntl(fd, get);
  if (flags < 0) return errno_status("fcntl");
  const int wanted = on ? flags | flag : flags & ~flag;
  if (wanted != flags && ::fcntl(fd, set, wanted) < 0) return errno_status("fcntl");
  return ok_status();
}

}  // namespace

Status set_nonblocking(int fd, bool on) { return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on); }
Status set_close_on_exec(int fd, bool on) { return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on); }

Status read_exactly(int fd, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = ::read(fd, out.data(), out.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status("read");
    if (n == 0) return unavailable("end of file");
    out = out.subspan(static_cast<size_t>(n));
  }
  return ok_status();
}

Status write_fully(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK) n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status("write");
    data = data.subspan(static_cast<size_t>(n));
  }
  return ok_status();
}

StatusOr<std::string> read_file(const std::string& path, size_t max_bytes) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    const std::string message = "cannot open " + path + ": " + std::strerror(error);
    return error == ENOENT ? not_found(message) : invalid_argument(message);
  }
  std::string content;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return invalid_argument("cannot read " + path + ": " + std::strerror(errno));
    if (n == 0) return content;
    if (content.size() + static_cast<size_t>(n) > max_bytes) {
      return invalid_argument(path + " is larger than " + std::to_string(max_bytes) + " bytes");
    }
    content.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace flotilla
