#include "engine/parallel/clock_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace flotilla {
namespace {

constexpr int kSendPatienceMs = 5000;

}  // namespace

StatusOr<std::unique_ptr<ClockClient>> ClockClient::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return invalid_argument("the path of the step clock's socket is too long: " + path);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno_status("socket for the step clock");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    char buffer[128];
    return unavailable("the step clock at " + path +
                       " cannot be reached: " + strerror_r(errno, buffer, sizeof buffer));
  }
  FLOTILLA_RETURN_IF_ERROR(set_nonblocking(fd.get(), true));
  return std::unique_ptr<ClockClient>(new ClockClient(std::move(fd)));
}

Status ClockClient::send(const wire::ToClock& message) {
  MutexLock lock(send_mutex_);
  send_buffer_.clear();
  append_frame(&send_buffer_, message);
  std::string_view left = send_buffer_;
  while (!left.empty()) {
    const ssize_t n = ::send(fd_.get(), left.data(), left.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      left.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd writable{fd_.get(), POLLOUT, 0};
      if (::poll(&writable, 1, kSendPatienceMs) == 0)
        return deadline_exceeded("the step clock does not read");
    } else if (errno != EINTR) {
      return unavailable("the step clock is gone");
    }
  }
  return ok_status();
}

StatusOr<std::vector<wire::FromClock>> ClockClient::receive() {
  std::vector<wire::FromClock> messages;
  char buffer[4096];
  while (true) {
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return messages;
    if (n <= 0) return unavailable("the step clock is gone");
    frames_.feed({buffer, static_cast<size_t>(n)});
    while (true) {
      const auto frame = frames_.next();
      if (!frame.ok()) return frame.status();
      if (!frame->has_value()) break;
      if (!messages.emplace_back().ParseFromArray((*frame)->data(),
                                                  static_cast<int>((*frame)->size()))) {
        return internal_error("the step clock sent a frame that is no message");
      }
    }
    // A short read emptied the socket: the usual single message costs one system call.
    if (static_cast<size_t>(n) < sizeof buffer) return messages;
  }
}

}  // namespace flotilla
