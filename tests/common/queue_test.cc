#include "common/queue.h"

#include <doctest/doctest.h>

#include <thread>

using namespace flotilla;

TEST_CASE("BoundedQueue.RefusesWhenFullAndLeavesTheItemWithTheCaller") {
  BoundedQueue<std::string> queue(1);
  std::string a = "a", b = "b";
  CHECK(queue.try_push(std::move(a)));
  CHECK_FALSE(queue.try_push(std::move(b)));
  CHECK(b == "b");
  CHECK(queue.take_all().size() == 1);
  CHECK(queue.try_push(std::move(b)));
}

TEST_CASE("BoundedQueue.WakesTheConsumerForAnItemAndForClose") {
  BoundedQueue<int> queue(10);
  const auto far = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::thread producer([&] { CHECK(queue.try_push(7)); });
  auto items = queue.wait_take_all(far);
  producer.join();
  REQUIRE(items.size() == 1);
  CHECK(items.front() == 7);
  std::thread closer([&] { queue.close(); });
  CHECK(queue.wait_take_all(far).empty());
  closer.join();
  CHECK_FALSE(queue.try_push(1));
}
