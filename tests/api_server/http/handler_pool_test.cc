#include "api_server/http/handler_pool.h"

#include <doctest/doctest.h>

#include "tests/api_server/http/http_test_server.h"

using namespace flotilla;
using namespace std::chrono_literals;

namespace {

const HttpRouter::Route kCheapRoute{.method = "GET", .handler = {}, .kind = RouteKind::kCheap};
const HttpRouter::Route kNormalRoute{.method = "POST", .handler = {}, .kind = RouteKind::kNormal};

std::shared_ptr<HttpJob> job(const HttpRouter::Route& route) {
  auto job = std::make_shared<HttpJob>();
  job->route = &route;
  return job;
}

}  // namespace

TEST_CASE("HandlerPool.GrowsWhileAllAreBusyAndShrinksWhenIdle") {
  Gate gate;
  std::atomic<int> done{0};
  HandlerPool pool({.name = "pool",
                    .reserved_threads = 1,
                    .max_threads = 4,
                    .max_queued = 10,
                    .idle_time = 20ms},
                   [&](const std::shared_ptr<HttpJob>&) {
                     gate.pass();
                     ++done;
                   });
  pool.start();
  CHECK(pool.num_threads() == 2);
  for (int i = 0; i < 8; ++i) REQUIRE(pool.submit(job(kNormalRoute)));
  gate.wait_for_waiters(4);
  CHECK(pool.num_threads() == 5);  // four at work, one reserved, and four jobs wait
  gate.open();
  CHECK(eventually([&] { return done == 8; }));
  CHECK(eventually([&] { return pool.num_threads() == 2; }));
  REQUIRE(pool.submit(job(kNormalRoute)));  // joins the ended ones
  CHECK(eventually([&] { return done == 9; }));
  pool.stop();
  CHECK(pool.num_threads() == 0);
}

TEST_CASE("HandlerPool.CheapJobsNeverWaitForOthers") {
  Gate gate;
  std::atomic<int> cheap_done{0};
  HandlerPool pool({.name = "pool", .reserved_threads = 1, .max_threads = 2, .max_queued = 100},
                   [&](const std::shared_ptr<HttpJob>& j) {
                     if (j->route->kind == RouteKind::kCheap) {
                       ++cheap_done;
                     } else {
                       gate.pass();
                     }
                   });
  pool.start();
  for (int i = 0; i < 50; ++i) REQUIRE(pool.submit(job(kNormalRoute)));
  gate.wait_for_waiters(2);
  for (int i = 0; i < 50; ++i) REQUIRE(pool.submit(job(kCheapRoute)));
  CHECK(eventually([&] { return cheap_done == 50; }));
  gate.open();
}

TEST_CASE("HandlerPool.WithoutReservedThreadsCheapJobsGoFirst") {
  Gate gate;
  Mutex mutex;
  std::vector<RouteKind> order;
  HandlerPool pool({.name = "pool", .reserved_threads = 0, .max_threads = 1, .max_queued = 100},
                   [&](const std::shared_ptr<HttpJob>& j) {
                     gate.pass();
                     MutexLock lock(mutex);
                     order.push_back(j->route->kind);
                   });
  pool.start();
  REQUIRE(pool.submit(job(kNormalRoute)));
  gate.wait_for_waiters(1);
  REQUIRE(pool.submit(job(kNormalRoute)));
  REQUIRE(pool.submit(job(kCheapRoute)));
  gate.open();
  CHECK(eventually([&] {
    MutexLock lock(mutex);
    return order.size() == 3;
  }));
  MutexLock lock(mutex);
  CHECK(order == std::vector<RouteKind>{RouteKind::kNormal, RouteKind::kCheap, RouteKind::kNormal});
}

TEST_CASE("HandlerPool.RefusesWhenFullAndDropsWhatWaitsWhenStopped") {
  Gate gate;
  std::atomic<int> done{0};
  HandlerPool pool({.name = "pool", .reserved_threads = 0, .max_threads = 1, .max_queued = 2},
                   [&](const std::shared_ptr<HttpJob>&) {
                     gate.pass();
                     ++done;
                   });
  pool.start();
  REQUIRE(pool.submit(job(kNormalRoute)));
  gate.wait_for_waiters(1);
  CHECK(pool.submit(job(kNormalRoute)));
  const auto dropped = job(kNormalRoute);
  CHECK(pool.submit(dropped));
  CHECK_FALSE(pool.submit(job(kNormalRoute)));
  std::thread stopper([&] { pool.stop(); });
  CHECK(eventually([&] { return dropped.use_count() == 1; }));  // its queue is cleared
  gate.open();
  stopper.join();
  CHECK(done == 1);
  CHECK_FALSE(pool.submit(job(kNormalRoute)));
}
