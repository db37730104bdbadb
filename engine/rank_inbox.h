// What other threads tell the engine thread: requests, cancellations, drain and stop. Bounded;
// wakes the engine thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "common/fd.h"
#include "common/mutex.h"
#include "common/status.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace flotilla {

class RankInbox {
 public:
  struct Submission {
    GenerationRequest request;
    TokenSink* sink;
  };
  struct Cancellation {
    TokenSink* sink;
    uint64_t id;
  };
  // In the order they came: a cancellation is always behind its submission.
  struct Content {
    std::vector<Submission> submissions;
    std::vector<Cancellation> cancellations;
    bool drain = false;
    bool stop = false;
    bool front_is_up = false;
  };

  explicit RankInbox(uint32_t max_waiting) : max_waiting_(max_waiting) {}

  int wake_fd() const { return wake_.fd(); }
  void wake() { wake_.wake(); }

  // Threads: any.
  Status submit(GenerationRequest request, TokenSink* sink) {
    {
      MutexLock lock(mutex_);
      if (content_.stop) return unavailable("the engine has stopped");
      if (draining_) return unavailable("this rank is draining");
      if (waiting_in_engine_ + content_.submissions.size() >= max_waiting_) {
        return resource_exhausted("the queue is full: " + std::to_string(max_waiting_) +
                                  " requests are waiting (--max-queue-length)");
      }
      content_.submissions.push_back({std::move(request), sink});
    }
    wake_.wake();
    return ok_status();
  }
  void cancel(TokenSink* sink, uint64_t id) {
    {
      MutexLock lock(mutex_);
      content_.cancellations.push_back({sink, id});
    }
    wake_.wake();
  }
  void drain() {
    {
      MutexLock lock(mutex_);
      draining_ = content_.drain = true;
    }
    wake_.wake();
  }
  // Nothing new is taken, but others may still need this rank: drain() without leaving.
  void refuse_new() {
    MutexLock lock(mutex_);
    draining_ = true;
  }
  void stop() {
    {
      MutexLock lock(mutex_);
      content_.stop = true;
    }
    wake_.wake();
  }
  void front_is_up() {
    {
      MutexLock lock(mutex_);
      content_.front_is_up = true;
    }
    wake_.wake();
  }
  bool draining() const {
    MutexLock lock(mutex_);
    return draining_;
  }
  size_t pending() const {
    MutexLock lock(mutex_);
    return content_.submissions.size();
  }

  // Threads: the engine thread. `waiting` sequences are in the batcher's queue.
  Content take() {
    wake_.drain();
    MutexLock lock(mutex_);
    Content taken = std::exchange(content_, {});
    content_.stop = taken.stop;
    waiting_in_engine_ += taken.submissions.size();
    return taken;
  }
  void set_waiting(uint32_t waiting) {
    MutexLock lock(mutex_);
    waiting_in_engine_ = waiting;
  }

 private:
  const uint32_t max_waiting_;
  WakeFd wake_;
  mutable Mutex mutex_;
  Content content_ GUARDED_BY(mutex_);
  bool draining_ GUARDED_BY(mutex_) = false;
  size_t waiting_in_engine_ GUARDED_BY(mutex_) = 0;
};

}  // namespace flotilla
