// Malformed requests over real sockets: each is refused as it should, and nothing behind it is
// served.
#include <doctest/doctest.h>

#include "tests/api_server/http/http_test_client.h"
#include "tests/api_server/http/http_test_server.h"
#include "tests/api_server/http/malformed_requests.h"

using namespace flotilla;

namespace {

// Sends `bytes` and a request behind them that must not be served.
void check_refused(TestServer& server, const std::string& bytes, const MalformedRequest& expected) {
  CAPTURE(expected.name);
  const int before = server.echoes();
  const auto started = std::chrono::steady_clock::now();
  RawClient client(server.port());
  client.send(bytes + "\r\n\r\n" + post("/echo", "smuggled") + post("/echo", "smuggled"));
  const auto response = client.read_response();
  REQUIRE(response);
  CHECK(response->status == expected.status);
  CHECK(response->header("Connection") == "close");
  CHECK(response->header("Content-Type") == "application/json");
  CHECK(response->body.find(R"({"error":{"message":")") == 0);
  CHECK(response->body.find("\"code\":\"" + expected.code + "\"") != std::string::npos);
  CHECK(client.read_to_end(std::chrono::seconds(5)) == RawClient::End::kClosed);
  CHECK(client.received().empty());
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(5));
  CHECK(server.echoes() == before);
}

}  // namespace

TEST_CASE("HttpServer.MalformedHeadsAreRefusedAndNothingBehindThemIsServed") {
  TestServer server;
  for (const MalformedRequest& bad : malformed_heads()) check_refused(server, bad.bytes, bad);
  CHECK(server->counters().refusals(HttpRefusal::kMalformed) == malformed_heads().size());
}

TEST_CASE("HttpServer.MalformedChunksAreRefusedAndNothingBehindThemIsServed") {
  TestServer server;
  const std::string head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const MalformedRequest& bad : malformed_chunks()) {
    check_refused(server, head + bad.bytes, bad);
    check_refused(server, head + "3\r\nabc\r\n" + bad.bytes, bad);
  }
}

TEST_CASE("HttpServer.ARequestBeforeAMalformedOneIsAnswered") {
  TestServer server;
  RawClient client(server.port());
  REQUIRE(client.send(post("/echo", "good") + "BAD\r\n\r\n" + post("/echo", "bad")));
  CHECK(client.read_response()->body == "|good");
  CHECK(client.read_response()->status == 400);
  CHECK(client.read_to_end() == RawClient::End::kClosed);
  CHECK(server.echoes() == 1);
}

TEST_CASE("HttpServer.ACompressedBodyIs415") {
  TestServer server;
  check_refused(
      server,
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n1234",
      {.name = "gzip", .bytes = {}, .status = 415, .code = "unsupported_content_encoding"});
  RawClient client(server.port());
  REQUIRE(
      client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: Identity\r\nContent-Length: "
                  "1\r\n\r\n1"));
  CHECK(client.read_response()->status == 200);
}

TEST_CASE("HttpServer.RandomBytesNeverHurt") {
  TestServer server;
  uint32_t state = 12345;  // xorshift, fixed seed
  const auto next = [&] {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
  };
  const std::string valid = post("/echo", "hello") +
                            "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 300; ++i) {
    std::string bytes = valid;
    for (uint32_t changes = next() % 4 + 1; changes > 0; --changes) {
      bytes[next() % bytes.size()] = static_cast<char>(next() & 0xFF);
    }
    RawClient client(server.port());
    client.send(bytes);
    client.half_close();
    CHECK(client.read_to_end() != RawClient::End::kStillOpen);
  }
  RawClient client(server.port());
  REQUIRE(client.send(get("/health")));
  CHECK(client.read_response()->status == 200);
  CHECK(eventually([&] { return server->counters().requests_in_flight == 0; }));
}
