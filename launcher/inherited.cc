#include "launcher/inherited.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <set>

#include "common/flags/flag_value.h"
#include "launcher/cluster_secret.h"

namespace flotilla {
namespace {

constexpr int kFirstFd = 3;  // behind stdin, stdout, stderr

Status bad(const std::string& why) {
  return invalid_argument(std::string(kInheritedFdsVariable) +
                          " is set by multi_api_server for its ranks and is wrong here: " + why +
                          "; unset it to start api_server by hand");
}

Status expect_stream_socket(const std::string& name, int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM ||
      !bound_port(fd).ok()) {
    return bad(name + "=" + std::to_string(fd) + " is no bound TCP socket");
  }
  return ok_status();
}

Status take(const std::string& entry, std::set<int>* seen, InheritedFds* out) {
  const size_t equals = entry.find('=');
  if (equals == std::string::npos) return bad("expected name=number, got '" + entry + "'");
  const std::string name = entry.substr(0, equals);
  const std::optional<int64_t> number = parse_integer(entry.substr(equals + 1));
  if (!number || *number < kFirstFd || *number > 1 << 20)
    return bad("expected name=number, got '" + entry + "'");
  const int fd = static_cast<int>(*number);
  if (!seen->insert(fd).second) return bad("descriptor " + std::to_string(fd) + " is named twice");
  if (!set_close_on_exec(fd, true).ok()) return bad("descriptor " + entry + " is not open");
  if (name == "clock_secret") {
    const UniqueFd owned(fd);
    StatusOr<std::string> secret = read_secret_memfd(fd);
    if (!secret.ok()) return bad(secret.status().message());
    out->cluster_secret = *std::move(secret);
    return ok_status();
  }
  UniqueFd* slot = name == "http"      ? &out->http
                   : name == "metrics" ? &out->metrics
                   : name == "queue"   ? &out->queue
                                       : nullptr;
  if (slot == nullptr) return bad("unknown name '" + name + "'");
  if (*slot) return bad("'" + name + "' is there twice");
  FLOTILLA_RETURN_IF_ERROR(expect_stream_socket(name, fd));
  slot->reset(fd);
  return ok_status();
}

}  // namespace

StatusOr<InheritedFds> take_inherited_fds() {
  InheritedFds fds;
  const char* value = std::getenv(kInheritedFdsVariable);
  if (value == nullptr) return fds;
  const std::string text = value;
  unsetenv(kInheritedFdsVariable);
  std::set<int> seen;
  for (const std::string& entry : split_list(text))
    FLOTILLA_RETURN_IF_ERROR(take(entry, &seen, &fds));
  return fds;
}

Status start_listening(int fd, int backlog) {
  if (::listen(fd, backlog) != 0) return errno_status("listen");
  const int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
    return errno_status("SO_REUSEADDR");
  return ok_status();
}

StatusOr<int> bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return errno_status("getsockname");
  int port = 0;
  if (address.ss_family == AF_INET)
    port = ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  if (address.ss_family == AF_INET6)
    port = ntohs(reinterpret_cast<sockaddr_in6*>(&address)->sin6_port);
  if (port == 0) return failed_precondition("the socket is bound to no TCP port");
  return port;
}

}  // namespace flotilla
