#include "api_server/http/handler_pool.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>

#include "common/log.h"

namespace flotilla {
namespace {

// A general thread stays, so that a quiet server does not start one for every request.
constexpr size_t kMinGeneralThreads = 1;

}  // namespace

void HandlerPool::start() {
  MutexLock lock(mutex_);
  for (int i = 0; i < options_.reserved_threads; ++i) add_thread(Kind::kReserved);
  check(add_thread(Kind::kGeneral), "no thread could be started for HTTP handlers (ulimit -u?)");
}

bool HandlerPool::submit(std::shared_ptr<HttpJob> job) {
  std::vector<std::thread> ended;
  {
    MutexLock lock(mutex_);
    const bool cheap = job->route->kind == RouteKind::kCheap;
    auto& queue = cheap ? cheap_ : normal_;
    if (stopping_ || queue.size() >= options_.max_queued) return false;
    queue.push_back(std::move(job));
    provide_thread(cheap);
    ended = take_ended();
  }
  for (std::thread& thread : ended) thread.join();
  return true;
}

void HandlerPool::provide_thread(bool cheap) {
  if (cheap && waiting_reserved_ >= cheap_.size()) {
    reserved_ready_.notify_one();
    return;
  }
  const size_t excess_cheap =
      cheap_.size() > waiting_reserved_ ? cheap_.size() - waiting_reserved_ : 0;
  if (waiting_general_ < normal_.size() + excess_cheap &&
      num_general_ < static_cast<size_t>(options_.max_threads)) {
    add_thread(Kind::kGeneral);
  }
  general_ready_.notify_one();
}

bool HandlerPool::add_thread(Kind kind) {
  const uint64_t id = next_id_++;
  try {
    threads_[id] = std::thread([this, kind, id] { run(kind, id); });
  } catch (const std::system_error& error) {
    // The threads there are will get to the job.
    threads_.erase(id);
    log_warn("http_thread_refused", {{"server", options_.name}, {"why", error.what()}});
    return false;
  }
  ::pthread_setname_np(threads_[id].native_handle(),
                       (options_.name + "-work").substr(0, 15).c_str());
  if (kind == Kind::kGeneral) ++num_general_;
  ++num_threads_;
  return true;
}

void HandlerPool::run(Kind kind, uint64_t id) {
  while (const auto job = take(kind)) run_(job);
  MutexLock lock(mutex_);
  --num_threads_;
  ended_.push_back(id);
}

std::shared_ptr<HttpJob> HandlerPool::take(Kind kind) {
  const bool general = kind == Kind::kGeneral;
  MutexLock lock(mutex_);
  size_t& waiting = general ? waiting_general_ : waiting_reserved_;
  CondVar& ready = general ? general_ready_ : reserved_ready_;
  const auto work = [&]() REQUIRES(mutex_) {
    return stopping_ || !cheap_.empty() || (general && !normal_.empty());
  };
  ++waiting;
  if (general) {
    while (!ready.wait_until(lock, std::chrono::steady_clock::now() + options_.idle_time, work)) {
      if (num_general_ <= kMinGeneralThreads) {
        ready.wait(lock, work);
        break;
      }
      --waiting;
      --num_general_;
      return nullptr;
    }
  } else {
    ready.wait(lock, work);
  }
  --waiting;
  if (stopping_) return nullptr;
  auto& queue = cheap_.empty() ? normal_ : cheap_;
  auto job = std::move(queue.front());
  queue.pop_front();
  return job;
}

std::vector<std::thread> HandlerPool::take_ended() {
  std::vector<std::thread> ended;
  for (const uint64_t id : ended_) ended.push_back(std::move(threads_.extract(id).mapped()));
  ended_.clear();
  return ended;
}

void HandlerPool::stop() {
  std::unordered_map<uint64_t, std::thread> threads;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    cheap_.clear();
    normal_.clear();
    threads = std::move(threads_);
    threads_.clear();
  }
  reserved_ready_.notify_all();
  general_ready_.notify_all();
  for (auto& [id, thread] : threads) thread.join();
}

}  // namespace flotilla
