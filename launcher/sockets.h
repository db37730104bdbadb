// Ports: bound by the launcher before any rank starts, so that a busy one is an error at once and a
// free one cannot be lost to a race; handed to the rank as open descriptors (inherited.h).
#pragma once

#include <string>

#include "common/fd.h"
#include "common/status.h"

namespace flotilla {

struct PortRequest {
  std::string host;
  int port = 0;      // 0: any free one
  std::string flag;  // for errors: "--ports"
  int rank = 0;      // for errors
};

// A TCP socket bound to the port, close-on-exec, not listening: a connection is refused until the
// rank listens. Nobody else can bind the port meanwhile, except that where old connections in
// TIME_WAIT forced SO_REUSEADDR another process that sets it too could; whoever listens first wins
// then. SO_REUSEPORT is never set. kUnavailable if the port is busy (the message names who holds
// it, where /proc tells); kInvalidArgument for an address that is not this machine's or a port that
// this user may not bind.
StatusOr<UniqueFd> bind_port(const PortRequest& request);

// "nginx (pid 4711)" for the process that listens on the port; "" if it cannot be found or seen.
std::string holder_of_port(int port);

}  // namespace flotilla
