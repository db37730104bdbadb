// The computing threads of one stream: the calling thread and num_threads - 1 workers.
// Between two parallel regions a worker waits actively, for at most kActiveWait and less when that
// has been in vain, then sleeps on a futex; so does the caller when it waits for the last worker.
// An idle pool uses no CPU. Tasks are claimed one by one, so a worker that has no core delays a
// region by one task at most, and one that wakes up late finds nothing to do.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace flotilla {

class ThreadPool {
 public:
  static constexpr std::chrono::nanoseconds kActiveWait{30'000};

  // Thread i runs on cores[i % size]; empty: not pinned. The caller counts as thread 0 and is
  // pinned when it first computes.
  ThreadPool(int num_threads, std::vector<int> cores);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(task, thread) for every task in [0, count), each once, on threads 0 … num_threads - 1;
  // returns when all are done. Which thread runs which task is left open. Threads: one caller at a
  // time; not from within f.
  template <typename F>
  void parallel_for(int64_t count, F&& f) {
    run(
        count,
        [](void* context, int64_t task, int thread) {
          (*static_cast<std::remove_reference_t<F>*>(context))(task, thread);
        },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Function = void (*)(void* context, int64_t task, int thread);

  void run(int64_t count, Function function, void* context);
  // Claims and runs tasks of the current region until none is left; returns how many.
  uint32_t claim_and_run(int thread);
  void work(int thread);
  void wait_for_region(uint32_t seen, std::chrono::nanoseconds& patience);
  void pin_caller();

  const std::vector<int> cores_;
  std::vector<std::thread> workers_;
  std::thread::id pinned_caller_;

  // Of the current region; written only while no task is left to claim and none is running.
  Function function_ = nullptr;
  void* context_ = nullptr;

  // Tasks of the region in the upper half, the next one to claim in the lower. One word, so that a
  // claim is valid for exactly the region whose count it was compared with: a late worker can never
  // run a task of a region that is over.
  alignas(64) std::atomic<uint64_t> claims_{0};
  alignas(64) std::atomic<uint32_t> region_{0};  // counts regions; futex of the workers
  std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint32_t> done_{0};  // finished tasks of the region; futex of the caller
  std::atomic<bool> caller_sleeps_{false};
};

}  // namespace flotilla
