// A mutex that clang's -Wthread-safety can check (as in leveldb's port_stdcxx.h).
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define FLOTILLA_TSA(x) __attribute__((x))
#else
#define FLOTILLA_TSA(x)
#endif
#define GUARDED_BY(x) FLOTILLA_TSA(guarded_by(x))
#define REQUIRES(...) FLOTILLA_TSA(requires_capability(__VA_ARGS__))
#define CAPABILITY(x) FLOTILLA_TSA(capability(x))
#define SCOPED_CAPABILITY FLOTILLA_TSA(scoped_lockable)
#define ACQUIRE(...) FLOTILLA_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) FLOTILLA_TSA(release_capability(__VA_ARGS__))

namespace flotilla {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : lock_(mutex) {}
  ~MutexLock() RELEASE() {}

  std::unique_lock<Mutex>& native() { return lock_; }

 private:
  std::unique_lock<Mutex> lock_;
};

// Waits release the MutexLock and take it again.
class CondVar {
 public:
  template <typename Predicate>
  void wait(MutexLock& lock, Predicate ready) {
    cv_.wait(lock.native(), ready);
  }
  // False if the deadline came first.
  template <typename Clock, typename Duration, typename Predicate>
  bool wait_until(MutexLock& lock,
                  std::chrono::time_point<Clock, Duration> deadline,
                  Predicate ready) {
    return cv_.wait_until(lock.native(), deadline, ready);
  }
  void notify_one() { cv_.notify_one(); }
  void notify_all() { cv_.notify_all(); }

 private:
  std::condition_variable_any cv_;
};

}  // namespace flotilla
