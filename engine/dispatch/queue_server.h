// The queue port of a rank: other processes submit sequences here and get tokens back
// (common/wire/queue.proto). Runs in one thread of its own, the wire thread. A client that cannot
// show the cluster secret is heard no further; one that goes away has its sequences cancelled; one
// that does not read is cut off when 16 MiB of tokens wait for it.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "common/fd.h"
#include "common/ids.h"
#include "common/status.h"
#include "engine/engine.h"

namespace flotilla {

struct QueueServerOptions {
  Rank rank;
  std::string instance_id;
  std::string model_digest;
  std::string secret;  // of the cluster; never empty
};

class QueueServer {
 public:
  // `listener`: a TCP socket that listens. `engine` outlives the server.
  static StatusOr<std::unique_ptr<QueueServer>> start(UniqueFd listener,
                                                      const QueueServerOptions& options,
                                                      Engine& engine);
  // Cancels what still runs.
  ~QueueServer();

  // For the end of a drain: takes no new clients, and closes each one when it has been sent
  // everything. Waits for that until the deadline; false if somebody did not get all.
  bool finish(std::chrono::steady_clock::time_point deadline);

 private:
  class Impl;
  explicit QueueServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla
