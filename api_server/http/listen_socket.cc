#include "api_server/http/listen_socket.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

namespace flotilla {
namespace {

constexpr int kBacklog =
    4096;  // a fleet's clients reconnect at once; the kernel caps it at net.core.somaxconn
constexpr int kMaxUnsentBytes = 64 << 10;

Status set_option(int fd, int level, int option, int value, std::string_view name) {
  if (::setsockopt(fd, level, option, &value, sizeof value) == 0) return ok_status();
  return errno_status("setsockopt " + std::string(name));
}

// Inodes of sockets that listen on the port.
std::vector<std::string> listening_inodes(uint16_t port) {
  std::vector<std::string> inodes;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
      // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
      std::istringstream fields(line);
      std::string sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
      fields >> sl >> local >> remote >> state >> queues >> timer >> retransmits >> uid >>
          timeout >> inode;
      const size_t colon = local.rfind(':');
      constexpr std::string_view kListen = "0A";
      if (state != kListen || colon == std::string::npos) continue;
      if (std::strtoul(local.c_str() + colon + 1, nullptr, 16) == port) inodes.push_back(inode);
    }
  }
  return inodes;
}

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

bool holds_socket(const std::string& pid, const std::vector<std::string>& links) {
  const std::string folder = "/proc/" + pid + "/fd";
  const Directory fds(::opendir(folder.c_str()), ::closedir);
  if (!fds) return false;
  while (const dirent* entry = ::readdir(fds.get())) {
    char target[64];
    const ssize_t n = ::readlink((folder + "/" + entry->d_name).c_str(), target, sizeof target);
    if (n <= 0) continue;
    for (const std::string& link : links) {
      if (link == std::string_view(target, static_cast<size_t>(n))) return true;
    }
  }
  return false;
}

}  // namespace

std::string port_holder(uint16_t port) {
  std::vector<std::string> links;
  for (const std::string& inode : listening_inodes(port)) links.push_back("socket:[" + inode + "]");
  if (links.empty()) return {};
  const Directory processes(::opendir("/proc"), ::closedir);
  if (!processes) return {};
  while (const dirent* entry = ::readdir(processes.get())) {
    const std::string pid = entry->d_name;
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (!holds_socket(pid, links)) continue;
    std::ifstream comm("/proc/" + pid + "/comm");
    std::string name;
    std::getline(comm, name);
    return name + " (pid " + pid + ")";
  }
  return {};
}

StatusOr<UniqueFd> listen_on(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    return invalid_argument("cannot listen on host '" + host + "': " + ::gai_strerror(error) +
                            "; give an address of this machine, such as 0.0.0.0 or 127.0.0.1");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, ::freeaddrinfo);
  const std::string where = host + ":" + std::to_string(port);
  UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno_status("socket for " + where);
  // A restarted server gets its port back while old connections are in TIME_WAIT.
  FLOTILLA_RETURN_IF_ERROR(set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"));
  if (found->ai_family == AF_INET6) {
    FLOTILLA_RETURN_IF_ERROR(set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY"));
  }
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) == 0 &&
      ::listen(fd.get(), kBacklog) == 0) {
    return fd;
  }
  switch (errno) {
    case EADDRINUSE: {
      const std::string holder = port_holder(port);
      return unavailable("port " + std::to_string(port) + " is taken by " +
                         (holder.empty() ? "a process that can't be seen from here" : holder) +
                         ": stop it or choose another port");
    }
    case EADDRNOTAVAIL:
      return invalid_argument("cannot listen on " + where + ": not an address of this machine");
    case EACCES:
      return failed_precondition("cannot listen on " + where +
                                 ": ports below 1024 need the right CAP_NET_BIND_SERVICE");
    default:
      return errno_status("listen on " + where);
  }
}

StatusOr<uint16_t> local_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return errno_status("getsockname");
  }
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  }
  return invalid_argument("the listening socket is not a TCP one");
}

Status prepare_listening_socket(int fd, std::chrono::milliseconds stall_timeout) {
  int listening = 0;
  socklen_t size = sizeof listening;
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0) {
    return errno_status("getsockopt SO_ACCEPTCONN");
  }
  if (listening == 0) return invalid_argument("a socket that is bound and listens was expected");
  FLOTILLA_RETURN_IF_ERROR(set_nonblocking(fd, true));
  FLOTILLA_RETURN_IF_ERROR(set_close_on_exec(fd, true));
  // Linux copies all of these to accepted sockets: none of them costs a system call per connection.
  FLOTILLA_RETURN_IF_ERROR(set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"));
  FLOTILLA_RETURN_IF_ERROR(
      set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kMaxUnsentBytes, "TCP_NOTSENT_LOWAT"));
  FLOTILLA_RETURN_IF_ERROR(set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE"));
  FLOTILLA_RETURN_IF_ERROR(set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30, "TCP_KEEPIDLE"));
  FLOTILLA_RETURN_IF_ERROR(set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10, "TCP_KEEPINTVL"));
  FLOTILLA_RETURN_IF_ERROR(set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3, "TCP_KEEPCNT"));
  return set_option(fd,
                    IPPROTO_TCP,
                    TCP_USER_TIMEOUT,
                    static_cast<int>(stall_timeout.count()),
                    "TCP_USER_TIMEOUT");
}

}  // namespace flotilla
