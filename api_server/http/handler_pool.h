// Threads that run handlers: some for cheap requests only, the others started when all are busy and
// ended when idle.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "api_server/http/http_job.h"
#include "common/mutex.h"

namespace flotilla {

class HandlerPool {
 public:
  struct Options {
    std::string name;                             // of the threads
    int reserved_threads = 2;                     // for cheap jobs; live as long as the pool
    int max_threads = 64;                         // for all jobs, cheap ones first; at least 1
    size_t max_queued = 1024;                     // jobs of either kind without a thread
    std::chrono::milliseconds idle_time{10'000};  // then a thread ends
  };
  using Run = std::function<void(const std::shared_ptr<HttpJob>&)>;

  HandlerPool(Options options, Run run) : options_(std::move(options)), run_(std::move(run)) {}
  ~HandlerPool() { stop(); }

  void start();
  // False, and nothing happens, if the queue is full or the pool has stopped.
  [[nodiscard]] bool submit(std::shared_ptr<HttpJob> job);
  // Waits for running handlers; jobs that no thread has begun are dropped.
  void stop();
  size_t num_threads() const { return num_threads_.load(std::memory_order_relaxed); }

 private:
  enum class Kind { kReserved, kGeneral };

  void run(Kind kind, uint64_t id);
  // The next job for a thread of that kind; null: the thread should end.
  std::shared_ptr<HttpJob> take(Kind kind);
  // Hands the newest job to a waiting thread, or starts one.
  void provide_thread(bool cheap) REQUIRES(mutex_);
  bool add_thread(Kind kind) REQUIRES(mutex_);
  // Threads that have ended by themselves, to be joined without the mutex.
  std::vector<std::thread> take_ended() REQUIRES(mutex_);

  const Options options_;
  const Run run_;
  std::atomic<size_t> num_threads_{0};

  Mutex mutex_;
  CondVar reserved_ready_;
  CondVar general_ready_;
  std::deque<std::shared_ptr<HttpJob>> cheap_ GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<HttpJob>> normal_ GUARDED_BY(mutex_);
  size_t waiting_reserved_ GUARDED_BY(mutex_) = 0;
  size_t waiting_general_ GUARDED_BY(mutex_) = 0;
  size_t num_general_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  uint64_t next_id_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<uint64_t, std::thread> threads_ GUARDED_BY(mutex_);
  std::vector<uint64_t> ended_ GUARDED_BY(mutex_);  // keys of threads_
};

}  // namespace flotilla
