#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "common/check.h"
#include "common/log.h"

namespace flotilla {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::nanoseconds kShortWait{2000};
constexpr int kPausesPerClockRead = 16;

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>& word, uint32_t waiters) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, waiters, nullptr, nullptr, 0);
}

// True if `ready` came true within `limit`.
template <typename Ready>
bool wait_actively(Clock::time_point start, Clock::duration limit, Ready ready) {
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (ready()) return true;
      __builtin_ia32_pause();
    }
  } while (Clock::now() - start < limit);
  return false;
}

void pin_this_thread(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (core >= 0 && core < CPU_SETSIZE) CPU_SET(core, &set);
  if (const int error = ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set); error != 0) {
    log_warn("thread_not_pinned", {{"core", core}, {"errno", error}});
  }
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, std::vector<int> cores)
    : num_threads_(num_threads),
      cores_(std::move(cores)),
      ranges_(std::make_unique<Range[]>(static_cast<size_t>(std::max(num_threads, 1)))) {
  check(num_threads >= 1, "a thread pool needs at least one thread");
  // Workers leave the process's signals to the threads that expect them.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this, i] { work(i); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  region_.fetch_add(1);
  futex_wake(region_, UINT32_MAX >> 1);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t count, Function function, void* context) {
  if (!cores_.empty()) pin_caller();
  if (num_threads_ == 1 || count <= 1) {
    for (int64_t task = 0; task < count; ++task) function(context, task, 0);
    return;
  }
  check(count < int64_t{1} << 31, "a parallel region has too many tasks");
  const auto tasks = static_cast<uint32_t>(count);
  function_ = function;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  const auto threads = static_cast<uint64_t>(num_threads_);
  for (uint64_t i = 0; i < threads; ++i) {
    const uint64_t begin = tasks * i / threads, end = tasks * (i + 1) / threads;
    ranges_[i].end_and_next.store(end << 32 | begin, std::memory_order_release);
  }
  region_.fetch_add(1);
  if (const uint32_t sleepers = sleepers_.load(); sleepers > 0) {
    futex_wake(region_, std::min(sleepers, tasks - 1));
  }

  const uint32_t own = claim_and_run(0);
  uint32_t done = done_.fetch_add(own) + own;
  const auto finished = [&] {
    done = done_.load(std::memory_order_acquire);
    return done == tasks;
  };
  if (done == tasks || wait_actively(Clock::now(), kActiveWait, finished)) return;
  caller_sleeps_.store(true);
  while (done_.load() != tasks) {
    done = done_.load();
    if (done != tasks) futex_wait(done_, done);
  }
  caller_sleeps_.store(false);
}

uint32_t ThreadPool::claim_and_run(int thread) {
  uint32_t finished = 0;
  for (int i = 0; i < num_threads_; ++i) {
    finished +=
        claim_and_run_range(ranges_[static_cast<size_t>((thread + i) % num_threads_)], thread);
  }
  return finished;
}

uint32_t ThreadPool::claim_and_run_range(Range& range, int thread) {
  uint32_t finished = 0;
  while (true) {
    const uint64_t claim = range.end_and_next.fetch_add(1, std::memory_order_acq_rel);
    const auto task = static_cast<uint32_t>(claim);
    if (task >= claim >> 32) return finished;
    function_(context_, task, thread);
    ++finished;
  }
}

void ThreadPool::work(int thread) {
  ::pthread_setname_np(::pthread_self(), ("compute" + std::to_string(thread)).c_str());
  if (!cores_.empty()) pin_this_thread(cores_[static_cast<size_t>(thread) % cores_.size()]);
  std::chrono::nanoseconds patience = kActiveWait;  // what active waiting has been worth lately
  uint32_t seen = 0;
  while (true) {
    wait_for_region(seen, patience);
    seen = region_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_acquire)) return;
    if (const uint32_t finished = claim_and_run(thread); finished > 0) {
      done_.fetch_add(finished);
      if (caller_sleeps_.load()) futex_wake(done_, 1);
    }
  }
}

void ThreadPool::wait_for_region(uint32_t seen, std::chrono::nanoseconds& patience) {
  const auto begun = [&] { return region_.load(std::memory_order_acquire) != seen; };
  const Clock::time_point start = Clock::now();
  if (wait_actively(start, patience, begun)) return;
  sleepers_.fetch_add(1);
  while (!begun()) futex_wait(region_, seen);
  sleepers_.fetch_sub(1);
  const bool nearly = Clock::now() - start < 2 * kActiveWait;
  patience = nearly ? kActiveWait : std::max(patience / 2, kShortWait);
}

void ThreadPool::pin_caller() {
  const std::thread::id caller = std::this_thread::get_id();
  if (caller == pinned_caller_) return;
  pinned_caller_ = caller;
  pin_this_thread(cores_[0]);
}

}  // namespace flotilla
