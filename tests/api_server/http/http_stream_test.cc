// Detached responses: streams of events, late answers, clients that vanish or read slowly, drain
// and stop.
#include <doctest/doctest.h>

#include <thread>

#include "tests/api_server/http/http_test_client.h"
#include "tests/api_server/http/http_test_server.h"

using namespace flotilla;
using namespace std::chrono_literals;

namespace {

auto soon() { return std::chrono::steady_clock::now() + 20s; }
auto at_once() { return std::chrono::steady_clock::now(); }

}  // namespace

TEST_CASE("ResponseStream.EventsArriveAsChunksAndTheConnectionLivesOn") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/stream", "{}") + get("/health")));
  const auto producer = server.take_producer();
  producer->push("data: 1\n\n");
  REQUIRE(client.read_until("\r\n\r\n9\r\ndata: 1\n\n\r\n"));
  producer->push("data: 2, which is longer than sixteen bytes\n\n");
  REQUIRE(client.read_until("\r\n2d\r\ndata: 2, which is longer than sixteen bytes\n\n\r\n"));
  producer->finish();
  const auto response = client.read_response();
  REQUIRE(response);
  CHECK(response->header("Content-Type") == "text/event-stream");
  CHECK(response->header("Cache-Control") == "no-cache");
  CHECK(response->header("X-Accel-Buffering") == "no");
  CHECK(response->header("Transfer-Encoding") == "chunked");
  CHECK(response->header("Content-Length").empty());
  CHECK(response->body == "data: 1\n\ndata: 2, which is longer than sixteen bytes\n\n");
  CHECK(client.read_response()->body == "ok");  // pipelined behind it
  CHECK(producer->gone() == 0);
  CHECK(server->counters().streams_open == 0);
}

TEST_CASE("ResponseStream.NewsBetweenTwoProducesArriveAsOnePiece") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/stream", "")));
  const auto producer = server.take_producer();
  producer->put("a");
  producer->put("b");
  producer->push("c");
  CHECK(client.read_until("\r\n3\r\nabc\r\n"));
}

TEST_CASE("ResponseStream.OnHttp10TheBodyEndsWithTheConnection") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send("POST /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  const auto producer = server.take_producer();
  producer->push("one ");
  producer->push("two");
  producer->finish();
  const auto response = client.read_response();
  REQUIRE(response);
  CHECK(response->header("Transfer-Encoding").empty());
  CHECK(response->header("Connection") == "close");
  CHECK(response->body == "one two");
}

TEST_CASE("ResponseStream.AnAnswerMayComeAsAWholeAndLate") {
  HttpServerOptions options;
  options.decorate = [](const HttpRequest& request, HttpHeaders* headers) {
    headers->set("X-Request-Id", request.headers.get("X-Request-Id"));
  };
  TestServer server(options);
  RawClient client(server.port());
  REQUIRE(
      client.send("POST /stream HTTP/1.1\r\nHost: x\r\nX-Request-Id: 7\r\n\r\n" + get("/health")));
  server.take_producer()->respond(
      {.status = 429, .headers = {{"Retry-After", "3"}}, .body = "full"});
  const auto response = client.read_response();
  REQUIRE(response);
  CHECK(response->status == 429);
  CHECK(response->header("Retry-After") == "3");
  CHECK(response->header("X-Request-Id") == "7");
  CHECK(response->header("Content-Length") == "4");
  CHECK(response->body == "full");
  CHECK(client.read_response()->body == "ok");
}

TEST_CASE("ResponseStream.WakesBeforeDetachAndAfterTheEndAreHarmless") {
  ResponseStreamHandle kept;
  {
    TestServer server({}, [&](HttpServer& s) {
      s.route("POST", "/early", [&](const HttpRequest&, HttpExchange& exchange) {
        auto producer = std::make_shared<HandProducer>();
        producer->set_stream(exchange.stream());
        kept = exchange.stream();
        producer->push("early");  // wakes a stream that is not attached yet
        producer->finish();
        exchange.detach(producer);
      });
      s.route("POST", "/refused", [&](const HttpRequest&, HttpExchange& exchange) {
        wake(exchange.stream());
        exchange.respond({.status = 503, .headers = {}, .body = "no"});
      });
    });
    RawClient client(server.port());
    REQUIRE(client.send(post("/early", "") + post("/refused", "")));
    CHECK(client.read_response()->body == "early");
    CHECK(client.read_response()->status == 503);
    wake(kept);
    REQUIRE(client.send(get("/health")));
    CHECK(client.read_response()->status == 200);
  }
  wake(kept);  // the server is gone
}

TEST_CASE("ResponseStream.WakeManyServesStreamsOfAllThreads") {
  HttpServerOptions options;
  options.io_threads = 3;
  TestServer server(options);
  constexpr int kStreams = 60;
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<std::shared_ptr<HandProducer>> producers;
  std::vector<ResponseStreamHandle> streams;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port()));
    REQUIRE(clients.back()->send(post("/stream", "")));
    producers.push_back(server.take_producer());
    streams.push_back(producers.back()->stream());
  }
  for (int step = 0; step < 20; ++step) {
    for (auto& producer : producers) producer->put("t" + std::to_string(step) + ".");
    wake_many(streams);
    for (auto& client : clients) REQUIRE(client->read_until("t" + std::to_string(step) + "."));
  }
  wake_many({});
  for (auto& producer : producers) producer->finish();
  for (auto& client : clients) CHECK(client->read_response()->body.ends_with("t19."));
}

TEST_CASE("ResponseStream.AVanishedClientIsNoticedInEveryState") {
  Gate gate;
  TestServer* self = nullptr;
  TestServer server({}, [&](HttpServer& s) {
    // Its handler goes on only after the client has gone, and then hands over a producer.
    s.route("POST", "/slow", [&](const HttpRequest&, HttpExchange& exchange) {
      gate.pass();
      CHECK(eventually([&] { return exchange.client_gone(); }));
      self->detach(exchange, std::make_shared<HandProducer>());
    });
  });
  self = &server;
  const size_t fds = num_open_fds();
  const auto after = [&](std::string_view state,
                         std::string_view request,
                         const std::function<std::shared_ptr<HandProducer>(RawClient&)>& wait) {
    for (const bool reset : {false, true}) {
      CAPTURE(state);
      CAPTURE(reset);
      auto client = std::make_unique<RawClient>(server.port());
      REQUIRE(client->send(request));
      auto producer = wait(*client);
      if (reset) client->reset();
      client.reset();
      if (state == "while its handler runs") producer = server.take_producer();
      if (producer) {
        CHECK(producer->wait_gone());
        const int calls = producer->calls();
        producer->push("late");
        RawClient other(server.port());
        REQUIRE(other.send(get("/health")));
        REQUIRE(other.read_response());
        CHECK(producer->calls() == calls);
        CHECK(producer->gone() == 1);
      }
      CHECK(eventually([&] {
        const HttpCounters c = server->counters();
        return c.connections_open == 0 && c.requests_in_flight == 0 && c.streams_open == 0 &&
               c.body_bytes_in_memory == 0;
      }));
      CHECK(eventually([&] { return num_open_fds() == fds; }));
    }
  };
  const auto until_waiting = [&](RawClient&) {
    auto producer = server.take_producer();
    REQUIRE(eventually([&] { return producer->calls() > 0; }));
    return producer;
  };
  const auto until_streaming = [&](RawClient& client) {
    auto producer = server.take_producer();
    producer->push("x");
    REQUIRE(client.read_until("\r\nx\r\n"));
    return producer;
  };
  const auto bytes = [&](uint64_t n) {
    const uint64_t before = server->counters().bytes_received;
    return [&server, before, n](RawClient&) -> std::shared_ptr<HandProducer> {
      REQUIRE(eventually([&] { return server->counters().bytes_received >= before + n; }));
      return nullptr;
    };
  };
  after("queued or in prefill", post("/stream", ""), until_waiting);
  after("without a stream", get("/stream"), until_waiting);
  after("with a request behind it", post("/stream", "") + post("/echo", "next"), until_waiting);
  after("in the middle of the stream", post("/stream", ""), until_streaming);
  int handlers = 0;
  after("while its handler runs", post("/slow", ""), [&](RawClient&) {
    gate.wait_for_waiters(++handlers);  // a reset may throw away what the server has not read yet
    gate.open();
    return nullptr;
  });
  after(
      "in its body", "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", bytes(1));
  after("in its head", "POST /str", bytes(1));
  after("before its head", "", bytes(0));
}

TEST_CASE("ResponseStream.AHalfClosedClientCountsAsGone") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/stream", "")));
  const auto producer = server.take_producer();
  client.half_close();
  CHECK(producer->wait_gone());
  CHECK(client.read_to_end() == RawClient::End::kClosed);
  CHECK(client.received().empty());
  CHECK(server->counters().clients_gone == 1);
}

TEST_CASE("ResponseStream.ASlowReaderIsBoundedCoalescedAndHurtsNobody") {
  HttpServerOptions options;
  options.io_threads =
      1;  // wakes are served in order: a later one's effect shows that an earlier one was looked at
  TestServer server(options);
  RawClient slow(server.port(), 4096);
  REQUIRE(slow.send(post("/stream", "")));
  const auto stalled = server.take_producer();
  RawClient quick(server.port());
  REQUIRE(quick.send(post("/stream", "")));
  const auto flowing = server.take_producer();

  // Until the kernel takes no more, every piece is asked for; then nothing is, however often it is
  // woken.
  const std::string piece(1000, 'p');
  int calls = -1, pushed = 0;
  while (stalled->calls() != calls || pushed < 100) {
    calls = stalled->calls();
    for (int i = 0; i < 20; ++i, ++pushed) stalled->push(piece);
    flowing->push("tick" + std::to_string(pushed) + ".");
    REQUIRE(quick.read_until("tick" + std::to_string(pushed) + "."));
    REQUIRE(pushed < 20'000);
  }
  const size_t before = resident_bytes();
  for (int i = 0; i < 20'000; ++i) wake(stalled->stream());
  flowing->push("end.");
  REQUIRE(quick.read_until("end."));
  CHECK(stalled->calls() == calls);
  if (kMemoryIsMeasurable) CHECK(resident_bytes() < before + (size_t{8} << 20));

  // When it reads on it gets everything, in larger pieces.
  stalled->finish();
  flowing->finish();
  const auto response = slow.read_response();
  REQUIRE(response);
  CHECK(response->body.size() == static_cast<size_t>(pushed) * piece.size());
  CHECK(stalled->calls() < calls + 50);
}

TEST_CASE("ResponseStream.AReaderThatStallsIsCut") {
  HttpServerOptions options;
  options.limits.stall_timeout = 200ms;
  TestServer server(options);
  RawClient client(server.port(), 4096);
  REQUIRE(client.send(post("/stream", "")));
  const auto producer = server.take_producer();
  producer->push(std::string(16 << 20, 'x'));
  CHECK(producer->wait_gone());
  CHECK(eventually([&] { return server->counters().connections_open == 0; }));
  CHECK(client.read_to_end() == RawClient::End::kReset);  // it must not look complete
  // Whichever looks first, the server's own clock or the kernel's (TCP_USER_TIMEOUT).
  CHECK(server->counters().clients_gone == 1);
}

TEST_CASE("ResponseStream.AProducerThatThrowsIsCut") {
  struct Thrower final : ResponseProducer {
    void produce(ResponseWriter&) override { throw std::runtime_error("broken"); }
    void on_client_gone() override {}
  };
  TestServer server({}, [&](HttpServer& s) {
    s.route("POST", "/throw", [](const HttpRequest&, HttpExchange& exchange) {
      exchange.detach(std::make_shared<Thrower>());
    });
  });
  RawClient client(server.port());
  REQUIRE(client.send(post("/throw", "")));
  CHECK(client.read_to_end() == RawClient::End::kReset);
  CHECK(eventually([&] { return server->counters().requests_in_flight == 0; }));
}

TEST_CASE("ResponseStream.ALargePieceArrivesWhole") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/stream", "")));
  const auto producer = server.take_producer();
  std::string large;
  for (int i = 0; large.size() < (5 << 20); ++i) large += std::to_string(i);
  producer->push(large);
  producer->push("tail");
  producer->finish();
  const auto response = client.read_response();
  REQUIRE(response);
  CHECK(response->body == large + "tail");
}

TEST_CASE("HttpServer.DrainEndsIdleConnectionsAndLetsStreamsFinish") {
  TestServer server;
  RawClient idle(server.port());
  REQUIRE(idle.send(get("/health")));
  REQUIRE(idle.read_response());
  RawClient streaming(server.port());
  REQUIRE(streaming.send(post("/stream", "")));
  const auto producer = server.take_producer();
  producer->push("before ");
  REQUIRE(streaming.read_until("before "));

  const auto start = std::chrono::steady_clock::now();
  server->begin_drain();
  CHECK(idle.read_to_end() == RawClient::End::kClosed);
  RawClient late(server.port());  // still taken: the routes say 503, probes answer
  REQUIRE(late.send(get("/health")));
  const auto answer = late.read_response();
  REQUIRE(answer);
  CHECK(answer->header("Connection") == "close");
  CHECK(late.read_to_end() == RawClient::End::kClosed);
  CHECK(std::chrono::steady_clock::now() - start < 100ms);

  producer->push("after");
  producer->finish();
  CHECK(streaming.read_response()->body == "before after");
  CHECK(streaming.read_to_end() == RawClient::End::kClosed);
  CHECK(server->stop(soon()));
}

TEST_CASE("HttpServer.StopWaitsForRunningStreams") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/stream", "")));
  const auto producer = server.take_producer();
  std::thread finisher([&] {
    eventually(
        [&] { return !RawClient(server.port()).connected(); });  // stop() has closed the port
    producer->push("whole");
    producer->finish();
  });
  CHECK(server->stop(soon()));
  finisher.join();
  CHECK(client.read_response()->body == "whole");
  CHECK(server->stop(soon()));  // again: nothing to do
}

TEST_CASE("HttpServer.StopCutsWhatDoesNotEndInTime") {
  const size_t fds = num_open_fds();
  {
    TestServer server;
    RawClient streaming(server.port()), waiting(server.port()), reading(server.port());
    REQUIRE(streaming.send(post("/stream", "")));
    const auto first = server.take_producer();
    first->push("half");
    REQUIRE(streaming.read_until("half"));
    REQUIRE(waiting.send(post("/stream", "")));
    const auto second = server.take_producer();
    REQUIRE(reading.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"));
    REQUIRE(eventually([&] { return server->counters().body_bytes_in_memory == 3; }));
    CHECK_FALSE(server->stop(at_once()));
    CHECK(first->gone() == 1);
    CHECK(second->gone() == 1);
    CHECK(streaming.read_to_end() == RawClient::End::kReset);
    const HttpCounters c = server->counters();
    CHECK(c.connections_open == 0);
    CHECK(c.requests_in_flight == 0);
    CHECK(c.streams_open == 0);
    CHECK(c.handler_threads == 0);
    CHECK(c.body_bytes_in_memory == 0);
    CHECK_FALSE(RawClient(server.port()).connected());
  }
  CHECK(num_open_fds() == fds);
}

TEST_CASE("HttpServer.StopLeavesNoQueuedRequestHanging") {
  Gate gate;
  HttpServerOptions options;
  options.max_threads = 1;
  TestServer server(options, [&](HttpServer& s) {
    s.route("POST", "/wait", [&](const HttpRequest&, HttpExchange& exchange) {
      gate.pass();
      exchange.respond({.status = 200, .headers = {}, .body = "done"});
    });
  });
  RawClient first(server.port()), second(server.port());
  REQUIRE(first.send(post("/wait", "")));
  gate.wait_for_waiters(1);
  REQUIRE(second.send(post("/wait", "")));
  REQUIRE(eventually([&] { return server->counters().requests_in_flight == 2; }));
  std::thread opener([&] {
    eventually([&] { return !RawClient(server.port()).connected(); });
    gate.open();
  });
  server->stop(at_once());
  opener.join();
  // The handler of the second may have begun just before the pool stopped; else the connection is
  // cut, never left hanging.
  const RawClient::End end = second.read_to_end();
  CHECK((end == RawClient::End::kReset || second.received().ends_with("done")));
  CHECK(server->counters().requests_in_flight == 0);
}
