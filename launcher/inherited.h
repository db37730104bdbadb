// The rank's end of what the launcher hands over: sockets that are bound but do not listen yet, and
// the cluster secret, as open descriptors that the variable FLOTILLA_FDS names
// ("http=5,metrics=6,queue=7,clock_secret=8").
#pragma once

#include <string>

#include "common/fd.h"
#include "common/status.h"

namespace flotilla {

inline constexpr char kInheritedFdsVariable[] = "FLOTILLA_FDS";

// Absent ones are empty: a rank started by hand has none.
struct InheritedFds {
  UniqueFd http;
  UniqueFd metrics;
  UniqueFd queue;
  std::string cluster_secret;  // 32 bytes
};

// Takes what the variable names, makes it close-on-exec and removes the variable, so that nothing
// is taken twice. Call it first in main(), before any thread. kInvalidArgument if the variable is
// malformed or names what is no such descriptor.
StatusOr<InheritedFds> take_inherited_fds();

// Bound → listening, with SO_REUSEADDR from here on. The order matters: set before listening, it
// would let a second process bind the port too; never set, connections of a dead rank would keep
// its port for up to a minute.
Status start_listening(int fd, int backlog);

// The port that a socket is bound to.
StatusOr<int> bound_port(int fd);

}  // namespace flotilla
