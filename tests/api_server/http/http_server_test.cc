#include "api_server/http/http_server.h"

#include <doctest/doctest.h>

#include <stdexcept>

#include "tests/api_server/http/http_test_client.h"
#include "tests/api_server/http/http_test_server.h"

using namespace flotilla;

TEST_CASE("HttpServer.AnswersAndKeepsTheConnection") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/echo?a=%20b", "hello")));
  const auto first = client.read_response();
  REQUIRE(first);
  CHECK(first->status == 200);
  CHECK(first->body == "a=%20b|hello");
  CHECK(first->head.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(first->header("Content-Type") == "text/plain");
  CHECK(first->header("Connection").empty());
  CHECK(first->header("Keep-Alive").empty());
  CHECK(first->header("Date").ends_with(" GMT"));
  REQUIRE(client.send(get("/health")));
  CHECK(client.read_response()->body == "ok");
}

TEST_CASE("HttpServer.KeepAliveIsNotCutAfterFiveRequests") {
  TestServer server;
  RawClient client(server.port());
  int answered = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string body = std::to_string(i);
    if (!client.send(post("/echo", body))) break;
    const auto response = client.read_response();
    if (!response || response->body != "|" + body) break;
    ++answered;
  }
  CHECK(answered == 1000);
  CHECK(server->counters().connections_accepted == 1);
  CHECK(server->counters().requests == 1000);
}

TEST_CASE("HttpServer.PipelinedRequestsAreAnsweredInOrder") {
  TestServer server;
  RawClient client(server.port());
  std::string all;
  for (int i = 0; i < 50; ++i) {
    all += i % 3 == 0 ? get("/nowhere") : post("/echo", "n" + std::to_string(i));
  }
  REQUIRE(client.send(all));
  for (int i = 0; i < 50; ++i) {
    const auto response = client.read_response();
    REQUIRE(response);
    CHECK(response->status == (i % 3 == 0 ? 404 : 200));
    if (i % 3 != 0) CHECK(response->body == "|n" + std::to_string(i));
  }
}

TEST_CASE("HttpServer.ARequestMayComeByteByByte") {
  TestServer server;
  RawClient client(server.port());
  for (const char c : post("/echo", "slow") + get("/health")) REQUIRE(client.send({&c, 1}));
  CHECK(client.read_response()->body == "|slow");
  CHECK(client.read_response()->body == "ok");
}

TEST_CASE("HttpServer.ChunkedBodiesArriveJoined") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(
      client.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
                  "5\r\nhello\r\n6;ext=\"v\"\r\n world\r\n0\r\nTrailer: dropped\r\n\r\n" +
                  get("/health")));
  CHECK(client.read_response()->body == "|hello world");
  CHECK(client.read_response()->body == "ok");
}

TEST_CASE("HttpServer.ExpectContinueGetsItsGoAheadBeforeTheBody") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n"));
  CHECK(client.read_response()->status == 100);
  REQUIRE(client.send("hi"));
  CHECK(client.read_response()->body == "|hi");

  SUBCASE("or at once the refusal that the body would have led to") {
    REQUIRE(client.send(
        "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    const auto response = client.read_response();
    CHECK(response->status == 404);
    CHECK(response->header("Connection") == "close");
    CHECK(client.read_to_end() == RawClient::End::kClosed);
  }
  SUBCASE("and HTTP/1.0 has no such thing") {
    REQUIRE(
        client.send("POST /echo HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi"));
    CHECK(client.read_response()->status == 200);
  }
}

TEST_CASE("HttpServer.Http10ClosesUnlessAskedToKeepAlive") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send("GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
  CHECK(client.read_response()->header("Connection") == "keep-alive");
  REQUIRE(client.send("GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  CHECK(client.read_response()->header("Connection") == "keep-alive");
  REQUIRE(client.send("GET /health HTTP/1.0\r\n\r\n"));
  CHECK(client.read_response()->header("Connection") == "close");
  CHECK(client.read_to_end() == RawClient::End::kClosed);
}

TEST_CASE("HttpServer.ConnectionCloseIsHonoured") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n" +
                      get("/health")));
  CHECK(client.read_response()->header("Connection") == "close");
  CHECK(client.read_to_end() == RawClient::End::kClosed);
  CHECK(client.received().empty());
}

TEST_CASE("HttpServer.UnknownPathIs404AndWrongMethod405WithAllow") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(get("/nowhere")));
  const auto missing = client.read_response();
  CHECK(missing->status == 404);
  CHECK(missing->header("Content-Type") == "application/json");
  CHECK(
      missing->body ==
      R"({"error":{"message":"there is no such path on this server","type":"invalid_request_error","param":null,"code":"unknown_url"}})");
  REQUIRE(client.send("DELETE /stream HTTP/1.1\r\nHost: x\r\n\r\n"));
  const auto wrong = client.read_response();
  CHECK(wrong->status == 405);
  CHECK(wrong->header("Allow") == "POST, GET, HEAD, OPTIONS");
  // The body of a refused request is read, so that the connection lives on.
  REQUIRE(client.send(post("/health", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n") + get("/health")));
  CHECK(client.read_response()->status == 405);
  CHECK(client.read_response()->status == 200);
  CHECK(server->counters().refusals(HttpRefusal::kNoSuchRoute) == 1);
  CHECK(server->counters().refusals(HttpRefusal::kMethodNotAllowed) == 2);
}

TEST_CASE("HttpServer.HeadHasTheHeadersOfGetAndNoBody") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(
      "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nHEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" +
      get("/health")));
  const auto head = client.read_response(true);
  CHECK(head->status == 200);
  CHECK(head->header("Content-Length") == "2");
  CHECK(client.read_response(true)->status == 404);
  CHECK(client.read_response()->body == "ok");
}

TEST_CASE("HttpServer.HeadOfAStreamEndsWithItsHead") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n"));
  const auto producer = server.take_producer();
  producer->push("text");
  CHECK(client.read_response(true)->status == 200);
  CHECK(producer->wait_gone());
  REQUIRE(client.send(get("/health")));
  CHECK(client.read_response()->body == "ok");
}

TEST_CASE("HttpServer.OptionsIsAnsweredWithAllowAndTheHooksHeaders") {
  HttpServerOptions options;
  options.decorate = [](const HttpRequest& request, HttpHeaders* headers) {
    if (request.headers.has("Origin")) headers->set("Access-Control-Allow-Origin", "*");
  };
  TestServer server(options);
  RawClient client(server.port());
  REQUIRE(client.send("OPTIONS /echo HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\n\r\n"));
  const auto preflight = client.read_response();
  CHECK(preflight->status == 204);
  CHECK(preflight->header("Allow") == "POST, OPTIONS");
  CHECK(preflight->header("Access-Control-Allow-Origin") == "*");
  CHECK(preflight->header("Content-Length").empty());
  REQUIRE(client.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"));
  CHECK(client.read_response()->status == 204);
  REQUIRE(client.send("OPTIONS /no HTTP/1.1\r\nHost: x\r\n\r\n"));
  CHECK(client.read_response()->status == 404);
}

TEST_CASE("HttpServer.EveryResponseIsDecoratedAndNoEchoCanSplitIt") {
  HttpServerOptions options;
  options.decorate = [](const HttpRequest& request, HttpHeaders* headers) {
    headers->set("X-Request-Id", request.headers.get("X-Request-Id"));
    headers->add("X-Path", request.path + "\r\nX-Forged: 1");
    headers->add("X-Bad\r\nX-Forged2", "1");
  };
  options.limits.max_body_bytes = 10;
  TestServer server(options);
  for (const std::string& request :
       {std::string("GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: id%0d%0aX-F: 1\r\n\r\n"),
        std::string("GET /none HTTP/1.1\r\nHost: x\r\nX-Request-Id: id%0d%0aX-F: 1\r\n\r\n"),
        std::string("POST /echo HTTP/1.1\r\nHost: x\r\nX-Request-Id: id%0d%0aX-F: 1\r\n"
                    "Content-Length: 11\r\n\r\n")}) {
    RawClient client(server.port());
    REQUIRE(client.send(request));
    const auto response = client.read_response();
    REQUIRE(response);
    CHECK(response->header("X-Request-Id") == "id%0d%0aX-F: 1");
    CHECK(response->header("X-Path").find("  X-Forged: 1") != std::string::npos);
    CHECK(response->header("X-Forged").empty());
    CHECK(response->head.find("X-Forged2") == std::string::npos);
  }
}

TEST_CASE("HttpServer.CheckHeadAnswersBeforeTheBodyIsRead") {
  HttpServerOptions options;
  options.check_head = [](const HttpRequest& head) -> std::optional<HttpResponse> {
    if (head.headers.get("Authorization") == "Bearer k") return std::nullopt;
    return HttpResponse{.status = 401, .headers = {}, .body = "who?"};
  };
  TestServer server(options);
  RawClient client(server.port());
  REQUIRE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n"));
  const auto refused = client.read_response();
  CHECK(refused->status == 401);
  CHECK(refused->body == "who?");
  CHECK(client.read_to_end() == RawClient::End::kClosed);

  RawClient other(server.port());
  REQUIRE(other.send(get("/health") +
                     "GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n"));
  CHECK(other.read_response()->status == 401);
  CHECK(other.read_response()->status == 200);
  CHECK(server.echoes() == 0);
  CHECK(server->counters().refusals(HttpRefusal::kCheckedHead) == 2);
}

TEST_CASE("HttpServer.AHandlerThatThrowsOrForgetsToAnswerIs500AndNoMore") {
  TestServer server({}, [](HttpServer& s) {
    s.route("GET", "/throw", [](const HttpRequest&, HttpExchange&) {
      throw std::runtime_error("secret detail");
    });
    s.route("GET", "/throw-int", [](const HttpRequest&, HttpExchange&) { throw 5; });
    s.route("GET", "/silent", [](const HttpRequest&, HttpExchange&) {});
  });
  RawClient client(server.port());
  for (const char* path : {"/throw", "/throw-int", "/silent"}) {
    REQUIRE(client.send(get(path)));
    const auto response = client.read_response();
    CHECK(response->status == 500);
    CHECK(response->header("x-should-retry") == "false");
    CHECK(response->body.find("secret") == std::string::npos);
    CHECK(response->body.find(R"("code":"internal_error")") != std::string::npos);
  }
  REQUIRE(client.send(get("/health")));
  CHECK(client.read_response()->status == 200);
  CHECK(server->counters().refusals(HttpRefusal::kHandlerFailed) == 3);
  CHECK(eventually([&] { return server->counters().requests_in_flight == 0; }));
}

TEST_CASE("HttpServer.RequestsInFlightReturnToZeroAfterTenThousandFailures") {
  TestServer server({}, [](HttpServer& s) {
    s.route("GET", "/bad", [](const HttpRequest&, HttpExchange& exchange) {
      exchange.respond({.status = 400, .headers = {}, .body = "bad"});
    });
  });
  const size_t fds = num_open_fds();
  {
    RawClient client(server.port());
    std::string batch;
    for (int i = 0; i < 100; ++i) batch += i % 2 == 0 ? get("/bad") : get("/none");
    int failures = 0;
    for (int i = 0; i < 100; ++i) {
      REQUIRE(client.send(batch));
      for (int k = 0; k < 100; ++k) failures += client.read_response()->status >= 400;
    }
    CHECK(failures == 10'000);
  }
  CHECK(eventually([&] {
    const HttpCounters c = server->counters();
    return c.requests_in_flight == 0 && c.connections_open == 0 && c.body_bytes_in_memory == 0;
  }));
  CHECK(eventually([&] { return num_open_fds() == fds; }));
}

TEST_CASE("HttpServer.AHalfClosedClientStillGetsAnAnswerThatIsGivenAtOnce") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/echo", "last words")));
  client.half_close();
  CHECK(client.read_response()->body == "|last words");
  CHECK(client.read_to_end() == RawClient::End::kClosed);
}

TEST_CASE("HttpServer.OnFinishedSeesEveryResponseOnce") {
  Mutex mutex;
  std::vector<std::string> seen;
  HttpServerOptions options;
  options.on_finished = [&](const HttpRequest& request, int status, bool complete) {
    MutexLock lock(mutex);
    seen.push_back(request.path + " " + std::to_string(status) + (complete ? " whole" : " cut"));
  };
  TestServer server(options);
  RawClient client(server.port());
  REQUIRE(client.send(get("/health") + get("/none") + post("/stream", "")));
  const auto producer = server.take_producer();
  producer->push("x");
  REQUIRE(client.read_until("\r\nx\r\n"));
  client.close();
  REQUIRE(producer->wait_gone());
  CHECK(eventually([&] {
    MutexLock lock(mutex);
    return seen.size() == 3;
  }));
  CHECK(seen ==
        std::vector<std::string>{"/health 200 whole", "/none 404 whole", "/stream 200 cut"});
}

TEST_CASE("HttpServer.StartRefusesASocketThatDoesNotListen") {
  HttpServer server({});
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Status status = server.start(std::move(socket));
  CHECK(status.code() == StatusCode::kInvalidArgument);
}
