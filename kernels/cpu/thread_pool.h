// The computing threads of one stream: the calling thread and num_threads - 1 workers.
// Between two parallel regions a worker waits actively, for at most kActiveWait and less when that
// has been in vain, then sleeps on a futex; so does the caller when it waits for the last worker.
// An idle pool uses no CPU. Every thread has a range of consecutive tasks that it claims one by one
// in order, and then helps the others: memory is read in long streams (measured: 10 % more of it
// than with tasks dealt out in turn), and a worker without a core delays a region by one task.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
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

  int num_threads() const { return num_threads_; }

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

  // Tasks of one thread in the current region: the end in the upper half, the next one to claim in
  // the lower. One word, so that a claim is valid for exactly the region whose end it was compared
  // with: a late worker can never run a task of a region that is over.
  struct alignas(64) Range {
    std::atomic<uint64_t> end_and_next{0};
  };

  void run(int64_t count, Function function, void* context);
  // Claims and runs tasks of the current region until none is left; returns how many.
  uint32_t claim_and_run(int thread);
  uint32_t claim_and_run_range(Range& range, int thread);
  void work(int thread);
  void wait_for_region(uint32_t seen, std::chrono::nanoseconds& patience);
  void pin_caller();

  const int num_threads_;
  const std::vector<int> cores_;
  std::vector<std::thread> workers_;
  std::thread::id pinned_caller_;

  // Of the current region; written only while no task is left to claim and none is running.
  Function function_ = nullptr;
  void* context_ = nullptr;

  const std::unique_ptr<Range[]> ranges_;
  alignas(64) std::atomic<uint32_t> region_{0};  // counts regions; futex of the workers
  std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint32_t> done_{0};  // finished tasks of the region; futex of the caller
  std::atomic<bool> caller_sleeps_{false};
};

}  // namespace flotilla
