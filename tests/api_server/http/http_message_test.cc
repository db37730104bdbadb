#include "api_server/http/http_message.h"

#include <doctest/doctest.h>

#include "api_server/http/httplib_bridge.h"
#include "api_server/http/router.h"

using namespace flotilla;

TEST_CASE("HttpHeaders.NamesCompareWithoutCase") {
  HttpHeaders headers = {{"Content-Type", "a"}, {"X", "1"}, {"x", "2"}};
  CHECK(headers.get("content-TYPE") == "a");
  CHECK(headers.count("X") == 2);
  headers.set("x", "3");
  CHECK(headers.count("X") == 1);
  CHECK(headers.get("X") == "3");
  headers.remove("CONTENT-type");
  CHECK_FALSE(headers.has("Content-Type"));
  CHECK(headers.get("none").empty());
}

TEST_CASE("HttpHeaders.NoValueCanSplitAResponse") {
  HttpHeaders headers;
  headers.add("A", std::string("x\r\nSet-Cookie: y\0z\x7f\tt", 21));
  headers.add("B\r\nC", "v");
  headers.add("", "v");
  CHECK(headers.size() == 1);
  std::string out;
  append_response_head(&out, 200, headers);
  CHECK(out == "HTTP/1.1 200 OK\r\nA: x  Set-Cookie: y z \tt\r\n\r\n");
}

TEST_CASE("HttpError.HasOpenAIsShapeAndTellsClientsWhetherToRetry") {
  const HttpError error{.status = 503, .code = "overloaded", .message = "say \"later\""};
  const HttpResponse busy = error_response(error, openai_error_body);
  CHECK(
      busy.body ==
      R"({"error":{"message":"say \"later\"","type":"server_error","param":null,"code":"overloaded"}})");
  CHECK(busy.headers.get("Retry-After") == "1");
  CHECK(openai_error_body({.status = 401}).find("authentication_error") != std::string::npos);
  CHECK(openai_error_body({.status = 429}).find("rate_limit_error") != std::string::npos);
  const HttpResponse own = error_response(
      {.status = 500}, [](const HttpError& e) { return "own " + std::to_string(e.status); });
  CHECK(own.body == "own 500");
  CHECK(own.headers.get("x-should-retry") == "false");
}

TEST_CASE("HttpRouter.FindsExactPathsThenTheLongestPrefix") {
  HttpRouter router;
  const auto add = [&](const char* method, const char* path) {
    router.add(method, path, {}, RouteKind::kNormal);
    return router.find(method, path).route;
  };
  const auto* exact = add("GET", "/v1/models");
  add("GET", "/v1/models/*");
  add("GET", "/v1/*");
  const auto* other = add("POST", "/v1/models/x");
  const auto find = [&](const char* method, const char* path) {
    return router.find(method, path).route;
  };
  CHECK(find("GET", "/v1/models") == exact);
  CHECK(find("HEAD", "/v1/models") == exact);
  CHECK(find("POST", "/v1/models/x") == other);
  const auto* models = find("GET", "/v1/models/org/name");
  REQUIRE(models != nullptr);
  CHECK(models == find("GET", "/v1/models/y"));
  CHECK(models != find("GET", "/v1/other"));
  CHECK(find("GET", "/v1/other") == find("GET", "/v1/other/deep"));
  CHECK(find("GET", "/v1/") == nullptr);
  CHECK(find("GET", "/v2") == nullptr);
  CHECK(find("GET", "/v1/models/x") == nullptr);  // an exact path hides the prefix
  CHECK(router.find("GET", "/v1/models/x").allow == "POST, OPTIONS");
  CHECK(router.find("PUT", "/v1/models").allow == "GET, HEAD, OPTIONS");
  CHECK(router.find("GET", "/" + std::string(8000, '/')).allow.empty());
}
