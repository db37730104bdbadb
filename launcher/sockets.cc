#include "launcher/sockets.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "common/flags/flag_value.h"

namespace flotilla {
namespace {

constexpr char kListening[] = "0A";  // TCP_LISTEN in /proc/net/tcp

// "port 1811 (--ports, rank 0)"
std::string label(const PortRequest& request) {
  return "port " + std::to_string(request.port) + " (" + request.flag + ", rank " +
         std::to_string(request.rank) + ")";
}

struct BindResult {
  UniqueFd fd;
  int error = 0;
};

BindResult try_bind(const addrinfo& address, bool reuse) {
  BindResult result;
  result.fd.reset(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!result.fd) {
    result.error = errno;
    return result;
  }
  const int on = 1;
  const int off = 0;
  if (address.ai_family == AF_INET6) {
    setsockopt(result.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  }
  if (reuse) setsockopt(result.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(result.fd.get(), address.ai_addr, address.ai_addrlen) != 0) result.error = errno;
  return result;
}

Status bind_error(const PortRequest& request, int error) {
  switch (error) {
    case EADDRINUSE: {
      const std::string holder = holder_of_port(request.port);
      return unavailable(label(request) + " is busy: " +
                         (holder.empty() ? "another process holds it" : holder + " listens there") +
                         "; stop that or choose another port");
    }
    case EACCES:
      return invalid_argument(label(request) +
                              " may not be bound by this user; choose a port above 1023");
    case EADDRNOTAVAIL:
      return invalid_argument(label(request) + ": " + request.host +
                              " is no address of this machine");
    default:
      return internal_error("cannot bind " + label(request) + ": " + std::strerror(error));
  }
}

// Inodes of the sockets that listen on the port.
std::set<std::string> listening_inodes(int port) {
  std::set<std::string> inodes;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);  // headings
    while (std::getline(file, line)) {
      std::istringstream words(line);
      std::string slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
      words >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> uid >>
          timeout >> inode;
      const size_t colon = local.rfind(':');
      if (state != kListening || colon == std::string::npos) continue;
      if (std::strtol(local.c_str() + colon + 1, nullptr, 16) == port)
        inodes.insert("socket:[" + inode + "]");
    }
  }
  return inodes;
}

}  // namespace

std::string holder_of_port(int port) {
  namespace fs = std::filesystem;
  const std::set<std::string> inodes = listening_inodes(port);
  if (inodes.empty()) return "";
  std::error_code error;
  for (fs::directory_iterator process("/proc", error), end; process != end && !error;
       process.increment(error)) {
    const std::string pid = process->path().filename();
    if (!parse_integer(pid)) continue;
    std::error_code unreadable;  // another user's process, or one that just ended
    for (fs::directory_iterator fd(process->path() / "fd", unreadable); fd != end && !unreadable;
         fd.increment(unreadable)) {
      std::error_code gone;
      const std::string target = fs::read_symlink(fd->path(), gone);
      if (gone || inodes.count(target) == 0) continue;
      std::ifstream comm(process->path() / "comm");
      std::string name;
      std::getline(comm, name);
      return name + " (pid " + pid + ")";
    }
  }
  return "";
}

StatusOr<UniqueFd> bind_port(const PortRequest& request) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed =
      getaddrinfo(request.host.c_str(), std::to_string(request.port).c_str(), &hints, &found);
  if (failed != 0) {
    return invalid_argument("cannot resolve the address '" + request.host + "' for " +
                            label(request) + ": " + gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  // A name such as localhost has both families: IPv4 is what clients try.
  const addrinfo* chosen = found;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    if (address->ai_family == AF_INET) {
      chosen = address;
      break;
    }
  }
  // Without SO_REUSEADDR first: two sockets that both set it could hold one port until one of them
  // listens.
  BindResult result = try_bind(*chosen, false);
  if (result.error == EADDRINUSE) result = try_bind(*chosen, true);  // only TIME_WAIT left?
  if (result.error != 0) return bind_error(request, result.error);
  return std::move(result.fd);
}

}  // namespace flotilla
