#include "launcher/notify.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "common/log.h"

namespace flotilla {

Notifier::Notifier(const Environment& environment) {
  const auto found = environment.find("NOTIFY_SOCKET");
  if (found == environment.end() || found->second.empty()) return;
  const std::string& address = found->second;
  if ((address[0] != '/' && address[0] != '@') || address.size() >= sizeof(sockaddr_un::sun_path)) {
    log_warn("notify_socket_unusable",
             {{"address", address}, {"expected", "an absolute path or @name"}});
    return;
  }
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket_) address_ = address;
}

void Notifier::send(const std::string& message) {
  if (!socket_) return;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());
  if (address_[0] == '@') to.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  sendto(socket_.get(),
         message.data(),
         message.size(),
         MSG_NOSIGNAL,
         reinterpret_cast<sockaddr*>(&to),
         size);
}

}  // namespace flotilla
