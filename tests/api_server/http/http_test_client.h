// A client that sends bytes as they are given and reads what comes: for what no well-behaved client
// would do.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "common/fd.h"

namespace flotilla {

struct ClientResponse {
  int status = 0;
  std::string head;  // with the status line, without the empty line
  std::string body;  // de-chunked

  // The value of a header, empty if absent.
  std::string header(std::string_view name) const {
    const std::string wanted = "\r\n" + std::string(name) + ": ";
    const size_t at = head.find(wanted);
    if (at == std::string::npos) return {};
    const size_t from = at + wanted.size();
    return head.substr(from, head.find("\r\n", from) - from);
  }
};

class RawClient {
 public:
  // `receive_buffer_bytes` bounds what the kernel takes for us while we don't read.
  explicit RawClient(uint16_t port, int receive_buffer_bytes = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer_bytes > 0) {
      ::setsockopt(
          fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ =
        ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

  bool connected() const { return connected_; }
  int fd() const { return fd_.get(); }

  // False once the server has reset the connection.
  bool send(std::string_view bytes) {
    return write_fully(fd_.get(), std::as_bytes(std::span(bytes.data(), bytes.size()))).ok();
  }
  void half_close() { ::shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_.reset(); }
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    fd_.reset();
  }

  // Reads one response; nullopt if the connection ends or `timeout` passes before it is whole.
  std::optional<ClientResponse> read_response(
      bool head_request = false, std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
    deadline_ = std::chrono::steady_clock::now() + timeout;
    size_t end;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!fill()) return std::nullopt;
    }
    ClientResponse response;
    response.head = buffer_.substr(0, end + 2);
    response.status = std::atoi(response.head.c_str() + 9);
    buffer_.erase(0, end + 4);
    if (head_request || response.status == 204 || response.status == 100) return response;
    if (response.header("Transfer-Encoding") == "chunked") {
      return read_chunks(&response) ? std::optional(response) : std::nullopt;
    }
    if (const std::string length = response.header("Content-Length"); !length.empty()) {
      const size_t bytes = std::strtoul(length.c_str(), nullptr, 10);
      while (buffer_.size() < bytes) {
        if (!fill()) return std::nullopt;
      }
      response.body = buffer_.substr(0, bytes);
      buffer_.erase(0, bytes);
      return response;
    }
    while (fill()) {
    }
    response.body = std::exchange(buffer_, {});
    return response;
  }

  // Waits until what has been received contains `text`.
  bool read_until(std::string_view text,
                  std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
    deadline_ = std::chrono::steady_clock::now() + timeout;
    while (buffer_.find(text) == std::string::npos) {
      if (!fill()) return false;
    }
    return true;
  }

  enum class End { kClosed, kReset, kStillOpen };
  // Reads up to the connection's end.
  End read_to_end(std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
    deadline_ = std::chrono::steady_clock::now() + timeout;
    while (fill()) {
    }
    return end_;
  }
  // Everything received and not yet taken by read_response().
  const std::string& received() const { return buffer_; }

 private:
  bool fill() {
    pollfd wait{fd_.get(), POLLIN, 0};
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(
          deadline_ - std::chrono::steady_clock::now());
      if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0) {
        end_ = End::kStillOpen;
        return false;
      }
      char bytes[16 << 10];
      const ssize_t n = ::recv(fd_.get(), bytes, sizeof bytes, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        end_ = n == 0 ? End::kClosed : End::kReset;
        return false;
      }
      buffer_.append(bytes, static_cast<size_t>(n));
      return true;
    }
  }

  bool read_chunks(ClientResponse* response) {
    for (;;) {
      size_t line;
      while ((line = buffer_.find("\r\n")) == std::string::npos) {
        if (!fill()) return false;
      }
      const size_t bytes = std::strtoul(buffer_.c_str(), nullptr, 16);
      while (buffer_.size() < line + 2 + bytes + 2) {
        if (!fill()) return false;
      }
      response->body.append(buffer_, line + 2, bytes);
      buffer_.erase(0, line + 2 + bytes + 2);
      if (bytes == 0) return true;
    }
  }

  UniqueFd fd_;
  bool connected_ = false;
  std::string buffer_;
  std::chrono::steady_clock::time_point deadline_{};
  End end_ = End::kStillOpen;
};

}  // namespace flotilla
