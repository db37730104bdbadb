#include "api_server/http/head_parser.h"

#include <doctest/doctest.h>

#include "tests/api_server/http/malformed_requests.h"

using namespace flotilla;
using Result = HeadParser::Result;

namespace {

RequestHead parsed(std::string_view bytes) {
  HeadParser parser({});
  const Result result = parser.scan(bytes);
  INFO(bytes);
  INFO(parser.error().message);
  REQUIRE(result == Result::kDone);
  REQUIRE(parser.head_bytes() == bytes.size());
  return parser.head();
}

std::string with(const std::string& field) {
  return "POST /v1/x HTTP/1.1\r\nHost: h:80\r\n" + field + "\r\n\r\n";
}

}  // namespace

TEST_CASE("HeadParser.TakesAPlainRequestApart") {
  const RequestHead head = parsed(
      "POST /v1/models/a%2Fb%20c?x=%20y&z HTTP/1.1\r\nHost: h\r\nX-A:b \t\r\nx-a: \r\n"
      "Content-Length: 00012\r\nconnection: keep-alive\r\n\r\n");
  CHECK(head.request.method == "POST");
  CHECK(head.request.target == "/v1/models/a%2Fb%20c?x=%20y&z");
  CHECK(head.request.path == "/v1/models/a/b c");
  CHECK(head.request.query == "x=%20y&z");
  CHECK(head.request.minor_version == 1);
  CHECK(head.request.headers.get("x-A") == "b");
  CHECK(head.request.headers.count("X-A") == 2);
  CHECK(head.framing == BodyFraming::kLength);
  CHECK(head.content_length == 12);
  CHECK(head.keep_alive);
  CHECK_FALSE(head.expect_continue);
}

TEST_CASE("HeadParser.KnowsTheFormsOfATarget") {
  const auto path = [](const std::string& target) {
    const RequestHead head = parsed("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n");
    return head.request.path + " " + head.request.query;
  };
  CHECK(path("/") == "/ ");
  CHECK(path("/a?") == "/a ");
  CHECK(path("/a?b?c") == "/a b?c");
  CHECK(path("http://h:8080/a?b") == "/a b");
  CHECK(path("HTTP://h") == "/ ");
  CHECK(path("https://h?q") == "/ q");
  CHECK(path("//a") == "//a ");
  CHECK(path("/a/../b") == "/a/../b ");
  CHECK(parsed("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").request.path == "*");
}

TEST_CASE("HeadParser.KnowsWhoKeepsTheConnection") {
  CHECK(parsed(with("A: b")).keep_alive);
  CHECK_FALSE(parsed(with("Connection: CLOSE")).keep_alive);
  CHECK_FALSE(parsed(with("Connection: a,close ,b")).keep_alive);
  CHECK_FALSE(parsed(with("Connection: keep-alive\r\nConnection: close")).keep_alive);
  CHECK(parsed(with("Connection: closed")).keep_alive);
  CHECK_FALSE(parsed("GET / HTTP/1.0\r\n\r\n").keep_alive);
  CHECK(parsed("GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n").keep_alive);
}

TEST_CASE("HeadParser.KnowsTheBodysFraming") {
  CHECK(parsed(with("A: b")).framing == BodyFraming::kNone);
  CHECK(parsed(with("Content-Length: 0")).framing == BodyFraming::kNone);
  CHECK(parsed(with("Transfer-Encoding: CHUNKED")).framing == BodyFraming::kChunked);
  CHECK(parsed(with("Content-Length: 18446744073709551615")).content_length == UINT64_MAX);
  CHECK(parsed(with("Expect: 100-Continue")).expect_continue);
  CHECK_FALSE(parsed("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
}

TEST_CASE("HeadParser.TakesWhatIsUnusualButClear") {
  parsed("\r\nGET / HTTP/1.1\r\nHost:\r\n\r\n");
  parsed("GET / HTTP/1.1\r\nHost: [::1]:80\r\nA: \xC3\xA4\tb\r\n\r\n");
  parsed("GET / HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~09: x\r\n\r\n");
  std::string line = "GET /" + std::string(8177, 'a') + " HTTP/1.1";
  REQUIRE(line.size() == 8191);
  parsed(line + "\r\nHost: h\r\n\r\n");
  std::string fields = "GET / HTTP/1.1\r\nHost: h\r\n";
  for (int i = 0; i < 127; ++i) fields += "A: " + std::string(500, 'a') + "\r\n";
  parsed(fields + "\r\n");
}

TEST_CASE("HeadParser.RefusesWhatCouldBeReadInTwoWays") {
  for (const MalformedRequest& bad : malformed_heads()) {
    CAPTURE(bad.name);
    HeadParser parser({});
    CHECK(parser.scan(bad.bytes) == Result::kError);
    CHECK(parser.error().status == bad.status);
    CHECK(parser.error().code == bad.code);
    CHECK_FALSE(parser.error().message.empty());
  }
}

TEST_CASE("HeadParser.TheSameHoweverTheBytesAreCut") {
  std::vector<std::string> inputs = {with("Content-Length: 5") + "hello",
                                     "\r\nGET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\r\n"};
  for (const MalformedRequest& bad : malformed_heads()) {
    if (bad.bytes.size() < 500) inputs.push_back(bad.bytes);
  }
  for (const std::string& bytes : inputs) {
    HeadParser whole({});
    const Result expected = whole.scan(bytes);
    HeadParser cut({});
    Result result = Result::kNeedMore;
    size_t given = 0;
    while (result == Result::kNeedMore && given < bytes.size()) {
      result = cut.scan(std::string_view(bytes).substr(0, ++given));
    }
    CAPTURE(bytes);
    CHECK(result == expected);
    CHECK(cut.error().code == whole.error().code);
    if (expected == Result::kDone) {
      CHECK(given == whole.head_bytes());
      CHECK(cut.head_bytes() == whole.head_bytes());
    }
  }
}

TEST_CASE("HeadParser.ErrorsComeAsSoonAsTheyShow") {
  HeadParser parser({});
  CHECK(parser.scan("GET / HTTP/1.0\n") == Result::kError);  // without waiting for an empty line
  HeadParser tls({});
  REQUIRE(tls.scan("\x16\x03") == Result::kError);
  CHECK(tls.error().message.find("TLS") != std::string::npos);
}

TEST_CASE("HeadParser.IsAsNewAfterReset") {
  HeadParser parser({});
  REQUIRE(parser.scan(with("Content-Length: 5")) == Result::kDone);
  parser.reset();
  REQUIRE(parser.scan("GET / HTTP/1.0\r\n\r\n") == Result::kDone);
  CHECK(parser.head().request.headers.size() == 0);
  CHECK(parser.head().framing == BodyFraming::kNone);
}
