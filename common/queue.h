// A bounded hand-over between threads. Producers never wait: a full queue refuses. Many producers,
// one consumer.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <utility>

#include "common/mutex.h"

namespace flotilla {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False, and the item is untouched, if the queue is full or closed.
  [[nodiscard]] bool try_push(T&& item) {
    {
      MutexLock lock(mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(item));
    }
    not_empty_.notify_one();
    return true;
  }

  // Everything there is, without waiting.
  std::deque<T> take_all() {
    MutexLock lock(mutex_);
    return std::exchange(items_, {});
  }

  // Waits until there is something, the queue is closed or the deadline comes; then takes
  // everything.
  std::deque<T> wait_take_all(std::chrono::steady_clock::time_point deadline) {
    MutexLock lock(mutex_);
    not_empty_.wait_until(lock, deadline, [&] { return closed_ || !items_.empty(); });
    return std::exchange(items_, {});
  }

  void close() {
    {
      MutexLock lock(mutex_);
      closed_ = true;
    }
    not_empty_.notify_all();
  }

  size_t size() const {
    MutexLock lock(mutex_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar not_empty_;
  std::deque<T> items_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace flotilla
