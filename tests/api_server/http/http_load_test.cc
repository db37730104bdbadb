// Many streams at once, and what they leave for others.
#include <doctest/doctest.h>
#include <sys/epoll.h>

#include <algorithm>
#include <thread>

#include "tests/api_server/http/http_test_client.h"
#include "tests/api_server/http/http_test_server.h"

using namespace flotilla;
using namespace std::chrono_literals;

namespace {

constexpr int kStreams = 512;
constexpr int kSteps = 40;  // at 20 per second: two seconds
constexpr auto kStep = 50ms;
constexpr std::string_view kEvent =
    "data: {\"token\":\"a token's worth of JSON, more or less\"}\n\n";

// Round trips of GET /health, until told to stop.
class Prober {
 public:
  explicit Prober(uint16_t port) : thread_([this, port] { run(port); }) {}
  // The 99th percentile, in seconds.
  double finish() {
    stop_ = true;
    thread_.join();
    std::sort(seconds_.begin(), seconds_.end());
    return seconds_.empty() ? 1e9 : seconds_[seconds_.size() * 99 / 100];
  }

 private:
  void run(uint16_t port) {
    while (!stop_) {
      const auto start = std::chrono::steady_clock::now();
      RawClient client(port);  // as a balancer's check does: a new connection each
      if (!client.send(get("/health")) || !client.read_response()) return;
      seconds_.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      std::this_thread::sleep_for(2ms);
    }
  }

  std::atomic<bool> stop_{false};
  std::vector<double> seconds_;
  std::thread thread_;
};

// Reads all sockets to their ends. Returns the bytes; fewer than all if `deadline` came first.
size_t read_all(const std::vector<std::unique_ptr<RawClient>>& clients,
                std::chrono::steady_clock::time_point deadline) {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  for (const auto& client : clients) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = client->fd()}};
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, client->fd(), &event);
  }
  size_t total = 0;
  size_t open = clients.size();
  std::vector<epoll_event> events(kStreams);
  char buffer[16 << 10];
  while (open > 0 && std::chrono::steady_clock::now() < deadline) {
    const int n = epoll_wait(epoll.get(), events.data(), kStreams, 100);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
      if (got > 0) {
        total += static_cast<size_t>(got);
      } else {
        epoll_ctl(epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
        --open;
      }
    }
  }
  return total;
}

}  // namespace

TEST_CASE("HttpServer.FiveHundredAndTwelveStreamsAndProbesWithinFiftyMilliseconds") {
  TestServer server;
  TestServer metrics({.io_threads = 1, .reserved_threads = 0, .max_threads = 2});
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<std::shared_ptr<HandProducer>> producers;
  std::vector<ResponseStreamHandle> streams;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port()));
    REQUIRE(clients.back()->send("POST /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    producers.push_back(server.take_producer());
    streams.push_back(producers.back()->stream());
    producers.back()->push("x");
    REQUIRE(clients.back()->read_until("\r\n1\r\nx\r\n"));  // the head and the first chunk
  }
  CHECK(server->counters().streams_open == kStreams);
  CHECK(server->counters().handler_threads < 10);

  Prober main_port(server.port());
  Prober metrics_port(metrics.port());
  size_t received = 0;
  std::thread reader([&] {
    received = read_all(clients, std::chrono::steady_clock::now() + kSteps * kStep + 20s);
  });
  auto next = std::chrono::steady_clock::now();
  for (int step = 0; step < kSteps; ++step) {
    std::this_thread::sleep_until(next += kStep);
    for (const auto& producer : producers) producer->put(kEvent);
    wake_many(streams);
  }
  for (const auto& producer : producers) producer->finish();
  reader.join();
  CHECK(main_port.finish() < 0.05);
  CHECK(metrics_port.finish() < 0.05);
  // Every step is one chunk, "38\r\n" + event + "\r\n"; one that was served late shares it with the
  // next, and its framing.
  const size_t end = std::string_view("0\r\n\r\n").size();
  CHECK(received <= kStreams * (kSteps * (kEvent.size() + 6) + end));
  CHECK(received >= kStreams * (kSteps * kEvent.size() + end));
  for (const auto& producer : producers) CHECK(producer->gone() == 0);
}

TEST_CASE("HttpServer.BigBodiesDoNotDelayProbes") {
  TestServer server({}, [](HttpServer& s) {
    s.route("POST", "/parse", [](const HttpRequest& request, HttpExchange& exchange) {
      uint64_t sum = 0;  // stands for JSON and tokenising: a pass over every byte, some ns each
      for (const char c : request.body) sum = sum * 31 + static_cast<unsigned char>(c);
      exchange.respond({.status = 200, .headers = {}, .body = std::to_string(sum)});
    });
  });
  std::atomic<bool> done{false};
  std::vector<std::thread> uploaders;
  for (int i = 0; i < 2; ++i) {
    uploaders.emplace_back([&] {
      const std::string request = post("/parse", std::string(10 << 20, 'x'));
      for (int k = 0; k < 3; ++k) {
        RawClient client(server.port());
        client.send(request);
        client.read_response();
      }
    });
  }
  std::thread waiter([&] {
    for (std::thread& t : uploaders) t.join();
    done = true;
  });
  RawClient probe(server.port());
  std::vector<double> seconds;
  while (!done) {
    const auto start = std::chrono::steady_clock::now();
    REQUIRE(probe.send(get("/health")));
    REQUIRE(probe.read_response());
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  waiter.join();
  std::sort(seconds.begin(), seconds.end());
  CHECK(seconds[seconds.size() * 99 / 100] < 0.05);
}
