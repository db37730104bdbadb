// Limits of size, time and number, and what happens to those who exceed them.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <ctime>
#include <thread>

#include "tests/api_server/http/http_test_client.h"
#include "tests/api_server/http/http_test_server.h"

using namespace flotilla;
using namespace std::chrono_literals;

namespace {

HttpServerOptions with_limits(const std::function<void(HttpLimits&)>& change) {
  HttpServerOptions options;
  change(options.limits);
  return options;
}

double process_cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

const std::string kChunkedHead =
    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

}  // namespace

TEST_CASE("HttpServer.AHeadThatDoesNotEndInTimeIs408") {
  TestServer server(with_limits([](HttpLimits& l) { l.head_timeout = 200ms; }));
  RawClient silent(server.port());
  RawClient slow(server.port());
  REQUIRE(slow.send("GET /health HTTP/1.1\r\nHost: x\r\n"));
  const auto response = slow.read_response();
  REQUIRE(response);
  CHECK(response->status == 408);
  CHECK(response->header("Connection") == "close");
  CHECK(slow.read_to_end() == RawClient::End::kClosed);
  CHECK(silent.read_to_end() == RawClient::End::kClosed);  // it never began: no answer
  CHECK(silent.received().empty());
  CHECK(server->counters().refusals(HttpRefusal::kHeadTimeout) == 1);
}

TEST_CASE("HttpServer.SlowHeadsHoldNoThreads") {
  HttpServerOptions options;
  options.max_threads = 2;
  options.reserved_threads = 0;
  TestServer server(options);
  std::vector<std::unique_ptr<RawClient>> loris;
  for (int i = 0; i < 300; ++i) {
    loris.push_back(std::make_unique<RawClient>(server.port()));
    REQUIRE(loris.back()->send("POST /echo HTTP/1.1\r\nHost: x\r\nX-Slow:"));
  }
  REQUIRE(eventually([&] { return server->counters().connections_open == 300; }));
  CHECK(server->counters().handler_threads == 1);
  RawClient client(server.port());
  REQUIRE(client.send(post("/echo", "quick")));
  CHECK(client.read_response()->body == "|quick");
  // And each may still end its request.
  REQUIRE(loris[123]->send(" 1\r\nContent-Length: 1\r\n\r\nz"));
  CHECK(loris[123]->read_response()->body == "|z");
}

TEST_CASE("HttpServer.ABodySlowerThanTheMinimumIs408") {
  TestServer server(with_limits([](HttpLimits& l) {
    l.body_window = 200ms;
    l.min_body_bytes_per_second = 10'000;  // 2,000 bytes a window
  }));
  SUBCASE("with Content-Length") {
    RawClient client(server.port());
    REQUIRE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc"));
    CHECK(client.read_response()->status == 408);
    CHECK(client.read_to_end() == RawClient::End::kClosed);
  }
  SUBCASE("in chunks") {
    RawClient client(server.port());
    REQUIRE(client.send(kChunkedHead + "3\r\nabc\r\n"));
    CHECK(client.read_response()->status == 408);
  }
  SUBCASE("but not one that is fast enough in every window") {
    RawClient client(server.port());
    REQUIRE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n"));
    for (int i = 0; i < 20; ++i) {
      REQUIRE(client.send(std::string(2000, 'a')));
      std::this_thread::sleep_for(40ms);  // the pace is what is tested
    }
    CHECK(client.read_response()->body.size() == 40'001);
    return;
  }
  CHECK(server->counters().refusals(HttpRefusal::kBodyTimeout) == 1);
  CHECK(eventually([&] { return server->counters().body_bytes_in_memory == 0; }));
}

TEST_CASE("HttpServer.IdleConnectionsAreClosedInSilence") {
  TestServer server(with_limits([](HttpLimits& l) { l.idle_timeout = 150ms; }));
  RawClient client(server.port());
  REQUIRE(client.send(get("/health")));
  CHECK(client.read_response()->status == 200);
  CHECK(client.read_to_end() == RawClient::End::kClosed);
  CHECK(client.received().empty());
}

TEST_CASE("HttpServer.ATooLargeBodyIs413AndTheClientSeesIt") {
  TestServer server;
  SUBCASE("announced") {
    RawClient client(server.port());
    REQUIRE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 33554433\r\n\r\n"));
    // It sends the whole body before it reads, as most clients do.
    const std::string megabyte(1 << 20, 'a');
    for (int i = 0; i < 32; ++i) REQUIRE(client.send(megabyte));
    REQUIRE(client.send("a" + post("/echo", "smuggled")));
    const auto response = client.read_response();
    REQUIRE(response);
    CHECK(response->status == 413);
    CHECK(response->body.find("33554432 bytes (--max-body-bytes)") != std::string::npos);
    CHECK(client.read_to_end(5s) == RawClient::End::kClosed);
  }
  SUBCASE("in chunks, cut while reading, in bounded memory") {
    const size_t before = resident_bytes();
    RawClient client(server.port());
    REQUIRE(client.send(kChunkedHead));
    const std::string chunk = "100000\r\n" + std::string(1 << 20, 'a') + "\r\n";
    size_t most = 0;
    for (int i = 0; i < 60; ++i) {
      REQUIRE(client.send(chunk));
      most = std::max(most, resident_bytes());
    }
    const auto response = client.read_response();
    REQUIRE(response);
    CHECK(response->status == 413);
    CHECK(client.read_to_end(5s) == RawClient::End::kClosed);
    // 32 MiB of body, twice while its buffer grows
    if (kMemoryIsMeasurable) CHECK(most - before < (size_t{100} << 20));
  }
  SUBCASE("an endless one is not drained for ever") {
    RawClient client(server.port());
    REQUIRE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"));
    const std::string megabyte(1 << 20, 'a');
    const auto start = std::chrono::steady_clock::now();
    while (client.send(megabyte)) {
      REQUIRE(std::chrono::steady_clock::now() - start < 5s);
    }
  }
  CHECK(server.echoes() == 0);
  CHECK(server->counters().refusals(HttpRefusal::kBodyTooLarge) == 1);
  CHECK(eventually([&] { return server->counters().body_bytes_in_memory == 0; }));
}

TEST_CASE("HttpServer.BodiesOfAllRequestsTogetherAreBounded") {
  TestServer server(with_limits([](HttpLimits& l) { l.max_body_bytes_in_memory = 1 << 20; }));
  RawClient first(server.port());
  REQUIRE(first.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" +
                     std::string(999'999, 'a')));
  REQUIRE(eventually([&] { return server->counters().body_bytes_in_memory == 999'999; }));
  RawClient second(server.port());
  REQUIRE(second.send(post("/echo", std::string(100'000, 'b'))));
  const auto refused = second.read_response();
  REQUIRE(refused);
  CHECK(refused->status == 503);
  CHECK(refused->header("Retry-After") == "1");
  REQUIRE(first.send("a"));
  CHECK(first.read_response()->status == 200);
  CHECK(eventually([&] { return server->counters().body_bytes_in_memory == 0; }));
}

TEST_CASE("HttpServer.AFullHandlerQueueIs503AndProbesStillAnswer") {
  Gate gate;
  HttpServerOptions options;
  options.max_threads = 1;
  options.max_queued_requests = 2;
  TestServer server(options, [&](HttpServer& s) {
    s.route("POST", "/wait", [&](const HttpRequest&, HttpExchange& exchange) {
      gate.pass();
      exchange.respond({.status = 200, .headers = {}, .body = "done"});
    });
  });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port()));
    REQUIRE(clients.back()->send(post("/wait", "")));
    if (i == 0) gate.wait_for_waiters(1);
    REQUIRE(eventually(
        [&] { return server->counters().requests_in_flight == static_cast<uint64_t>(i + 1); }));
  }
  RawClient late(server.port());
  REQUIRE(late.send(post("/wait", "") + get("/health")));
  const auto refused = late.read_response();
  REQUIRE(refused);
  CHECK(refused->status == 503);
  CHECK(refused->header("Retry-After") == "1");
  CHECK(late.read_response()->body == "ok");  // the connection lives, and a reserved thread answers
  gate.open();
  for (auto& client : clients) CHECK(client->read_response()->body == "done");
  CHECK(server->counters().refusals(HttpRefusal::kOverloaded) == 1);
}

TEST_CASE("HttpServer.TooManyConnectionsCloseTheLongestIdleOneOrGet503") {
  HttpServerOptions options = with_limits([](HttpLimits& l) { l.max_connections = 2; });
  options.io_threads = 1;
  TestServer server(options);
  RawClient idle(server.port());
  REQUIRE(idle.send(get("/health")));
  REQUIRE(idle.read_response());
  RawClient busy(server.port());
  REQUIRE(busy.send(post("/stream", "")));
  const auto producer = server.take_producer();
  RawClient third(server.port());
  REQUIRE(third.send(post("/stream", "")));
  const auto other = server.take_producer();
  CHECK(idle.read_to_end() == RawClient::End::kClosed);
  RawClient fourth(server.port());
  const auto refused = fourth.read_response();
  REQUIRE(refused);
  CHECK(refused->status == 503);
  CHECK(refused->body.find("too_many_connections") != std::string::npos);
  for (const auto& p : {producer, other}) {
    p->push("x");
    p->finish();
  }
  CHECK(busy.read_response()->body == "x");
  CHECK(third.read_response()->body == "x");
  CHECK(server->counters().refusals(HttpRefusal::kTooManyConnections) == 1);
}

TEST_CASE("HttpServer.OutOfDescriptorsPausesAcceptingWithoutSpinning") {
  TestServer server;
  RawClient warm(server.port());
  REQUIRE(warm.send(post("/stream", "")));
  const auto producer = server.take_producer();
  RawClient waiting(server.port());  // its socket is made before the descriptors run out
  REQUIRE(eventually([&] { return server->counters().connections_open == 2; }));

  struct DescriptorLimit {
    DescriptorLimit() { getrlimit(RLIMIT_NOFILE, &old); }
    ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &old); }
    rlimit old{};
  } const limit;
  std::vector<UniqueFd> hogs;
  UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const rlimit low{.rlim_cur = static_cast<rlim_t>(num_open_fds() + 20),
                   .rlim_max = limit.old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  for (;;) {
    UniqueFd hog(::dup(client.get()));
    if (!hog) break;
    hogs.push_back(std::move(hog));
  }
  const double cpu = process_cpu_seconds();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(eventually([&] { return server->counters().accept_pauses >= 3; }));
  CHECK(process_cpu_seconds() - cpu < 0.1);  // three pauses of 100 ms

  producer->push("still here");  // running streams do not notice
  CHECK(warm.read_until("still here"));
  hogs.clear();
  const std::string request = get("/health");
  CHECK(write_fully(client.get(), std::as_bytes(std::span(request))).ok());
  char byte = 0;
  CHECK(::recv(client.get(), &byte, 1, 0) == 1);  // it was accepted as soon as there was room
  CHECK(byte == 'H');
}
