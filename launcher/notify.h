// systemd's readiness protocol: datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3)),
// without its library.
#pragma once

#include <string>

#include "common/fd.h"
#include "common/flags/flags.h"

namespace flotilla {

class Notifier {
 public:
  // Does nothing if the environment has no NOTIFY_SOCKET.
  explicit Notifier(const Environment& environment);

  // "READY=1", "STOPPING=1", "STATUS=…". Never waits; a lost message is not reported.
  void send(const std::string& message);

 private:
  std::string address_;  // path, or a name behind '@'
  UniqueFd socket_;
};

}  // namespace flotilla
