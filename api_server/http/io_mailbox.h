// What other threads have for an I/O thread. It outlives the thread, so that a late wake finds
// something to fall into.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "api_server/http/http_job.h"
#include "api_server/http/response_stream.h"
#include "common/fd.h"
#include "common/mutex.h"

namespace flotilla {

struct IoCommand {
  enum class Kind { kAdopt, kAnswered, kDrain, kStopListening, kStop };
  Kind kind;
  UniqueFd socket = {};                    // kAdopt: a new connection
  std::string remote_address = {};         // kAdopt
  std::shared_ptr<HttpJob> job = nullptr;  // kAnswered: its handler has returned
};

struct IoMailbox {
  // Watched edge-triggered and never read: each write is an event of its own.
  WakeFd wake_fd;
  // A write is under way that the I/O thread has not seen: more writes would tell it nothing.
  std::atomic<bool> signalled{false};

  Mutex mutex;
  std::vector<IoCommand> commands GUARDED_BY(mutex);
  std::vector<ResponseStreamHandle> woken GUARDED_BY(mutex);
  // The I/O thread has ended: nothing is put in any more (a stream in its own mailbox would keep
  // both for ever).
  bool closed GUARDED_BY(mutex) = false;

  // False, and the command is dropped, if the I/O thread has ended.
  bool post(IoCommand command) {
    {
      MutexLock lock(mutex);
      if (closed) return false;
      commands.push_back(std::move(command));
    }
    signal();
    return true;
  }
  // After something was put in, with the mutex free again.
  void signal() {
    if (!signalled.exchange(true)) wake_fd.wake();
  }
};

}  // namespace flotilla
