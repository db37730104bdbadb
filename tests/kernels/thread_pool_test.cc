#include "kernels/cpu/thread_pool.h"

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/resource.h>

#include <set>

#include "common/mutex.h"

using namespace flotilla;

namespace {

double cpu_seconds() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

TEST_CASE("ThreadPool.RunsEveryTaskExactlyOnce") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads, {});
    CHECK(pool.num_threads() == threads);
    for (const int64_t count : {0, 1, 2, 3, 17, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
      pool.parallel_for(count, [&](int64_t task, int thread) {
        CHECK(thread >= 0);
        CHECK(thread < threads);
        ++runs[static_cast<size_t>(task)];
      });
      for (const auto& n : runs) CHECK(n == 1);
    }
  }
}

TEST_CASE("ThreadPool.ShowsTheCallerWhatTheTasksWrote") {
  // Plain memory: TSan sees it if a region does not order its writes before and after.
  ThreadPool pool(3, {});
  std::vector<int64_t> values(500, 0);
  int64_t sum = 0;
  for (int region = 0; region < 3000; ++region) {
    const int64_t add = region % 7;
    pool.parallel_for(1 + region % 20,
                      [&](int64_t task, int) { values[static_cast<size_t>(task)] += add; });
    sum += add * (1 + region % 20);
  }
  int64_t total = 0;
  for (const int64_t v : values) total += v;
  CHECK(total == sum);
}

TEST_CASE("ThreadPool.GivesTasksToWorkers") {
  ThreadPool pool(2, {});
  Mutex mutex;
  CondVar changed;
  std::set<int> threads;
  // Each task waits for the other: one thread alone could not finish.
  pool.parallel_for(2, [&](int64_t, int thread) {
    MutexLock lock(mutex);
    threads.insert(thread);
    changed.notify_all();
    changed.wait(lock, [&] { return threads.size() == 2; });
  });
  CHECK(threads == std::set<int>{0, 1});
}

TEST_CASE("ThreadPool.WakesWorkersThatHaveFallenAsleep") {
  ThreadPool pool(2, {});
  for (int i = 0; i < 20; ++i) {
    const double before = cpu_seconds();
    const auto until = std::chrono::steady_clock::now() + 10 * ThreadPool::kActiveWait;
    while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
    std::atomic<int> met{0};
    pool.parallel_for(2, [&](int64_t, int) {
      ++met;
      while (met < 2) std::this_thread::yield();
    });
    CHECK(met == 2);
    CHECK(cpu_seconds() >= before);
  }
}

TEST_CASE("ThreadPool.UsesNoCpuWhenIdle") {
  ThreadPool pool(4, {});
  pool.parallel_for(4, [](int64_t, int) {});
  const double before = cpu_seconds();
  // The wait is what is tested: an idle pool for 300 ms.
  timespec pause{0, 300'000'000};
  ::nanosleep(&pause, nullptr);
  CHECK(cpu_seconds() - before < 0.02);
}

TEST_CASE("ThreadPool.MayBeOversubscribed") {
  // More pools than cores, all at work at once, each from a thread of its own.
  std::vector<std::thread> callers;
  std::atomic<int64_t> total{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      ThreadPool pool(3, {});
      for (int region = 0; region < 200; ++region) {
        pool.parallel_for(5, [&](int64_t, int) { ++total; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(total == 4 * 200 * 5);
}

TEST_CASE("ThreadPool.PinsItsThreadsAndTheCaller") {
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  int core = 0;
  while (!CPU_ISSET(core, &before)) ++core;
  std::thread caller([&] {
    ThreadPool pool(2, {core});
    std::atomic<int> met{0};
    pool.parallel_for(2, [&](int64_t, int) {
      cpu_set_t set;
      ::sched_getaffinity(0, sizeof set, &set);
      CHECK(CPU_COUNT(&set) == 1);
      CHECK(CPU_ISSET(core, &set));
      ++met;
      while (met < 2) std::this_thread::yield();
    });
  });
  caller.join();
}

TEST_CASE("ThreadPool.GoesOnUnpinnedWhereTheCoreDoesNotExist") {
  std::thread caller([] {
    ThreadPool pool(2, {CPU_SETSIZE - 1});
    std::atomic<int> runs{0};
    pool.parallel_for(8, [&](int64_t, int) { ++runs; });
    CHECK(runs == 8);
  });
  caller.join();
}
