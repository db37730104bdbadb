// Binding a port so that a busy one is an error with a name, and the options that accepted sockets
// inherit.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "common/fd.h"
#include "common/status.h"

namespace flotilla {

// Binds and listens; port 0 takes a free one. `host` is an address or a name ("0.0.0.0", "::",
// "localhost"). SO_REUSEPORT stays off: two servers on one port would share its traffic unnoticed.
// kUnavailable if the port is taken, naming the process that holds it where /proc lets us see it;
// kInvalidArgument for a host that is not ours.
StatusOr<UniqueFd> listen_on(const std::string& host, uint16_t port);

// The port that a socket is bound to.
StatusOr<uint16_t> local_port(int fd);

// "nginx (pid 4711)", or empty if nobody listens on that TCP port or the process can't be seen.
std::string port_holder(uint16_t port);

// Non-blocking, and set so that every accepted connection sends at once, keeps little unsent output
// in the kernel, and finds out about a peer that vanished without a word: after `stall_timeout`
// when sending, half a minute more when silent.
Status prepare_listening_socket(int fd, std::chrono::milliseconds stall_timeout);

}  // namespace flotilla
