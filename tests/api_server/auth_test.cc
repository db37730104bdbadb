// Keys, origins, request ids.
#include "api_server/auth.h"

#include "tests/api_server/api_test_server.h"

namespace flotilla {
namespace {

constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kBody = R"({"messages":[{"role":"user","content":"hi"}]})";

AppOptions with_keys() {
  AppOptions options;
  options.api_keys = {"first", "second"};
  return options;
}

TEST_CASE("ApiKeys.AdmitAnyOfTheKeysAsABearerToken") {
  const ApiKeys keys({"first", "second"});
  CHECK(keys.admits("Bearer first"));
  CHECK(keys.admits("bearer second"));
  for (const char* wrong : {"",
                            "first",
                            "Bearer",
                            "Bearer ",
                            "Bearer  first",
                            "Bearer first ",
                            "Bearer firs",
                            "Bearer firstx",
                            "Basic first",
                            "Bearer first,second"}) {
    CAPTURE(wrong);
    CHECK_FALSE(keys.admits(wrong));
  }
  CHECK(ApiKeys({}).admits(""));
  CHECK_FALSE(ApiKeys({}).required());
}

TEST_CASE("Auth.GuardsEverythingButProbesMetricsAndPreflights") {
  ApiTestServer api(says("x"), with_keys());
  api.run();
  for (const auto& [method, path] : {std::pair{"POST", "/v1/chat/completions"},
                                     {"POST", "/v1/completions"},
                                     {"GET", "/v1/models"},
                                     {"GET", "/v1/models/x"},
                                     {"POST", "/tokenize"},
                                     {"POST", "/detokenize"},
                                     {"GET", "/config-info"}}) {
    CAPTURE(path);
    const ClientResponse r = api.ask(method, path, method == std::string("POST") ? kBody : "");
    CHECK(r.status == 401);
    CHECK(r.header("WWW-Authenticate") == "Bearer");
    CHECK(JsonText(r.body).text("/error/type") == "authentication_error");
    CHECK(api.ask(method, path, "", "Authorization: Bearer wrong\r\n").status == 401);
    CHECK(api.ask(method, path, "", "Authorization: Bearer second\r\n").status != 401);
  }
  for (const char* path : {"/health", "/ready", "/ping", "/metrics", "/version", "/load"}) {
    CAPTURE(path);
    CHECK(api.get(path).status == 200);
  }
  CHECK(api.ask("OPTIONS", kChat).status == 204);
  CHECK(api.post(kChat, kBody, "Authorization: Bearer first\r\n").status == 200);
}

// The matched route decides, however the path is written.
TEST_CASE("Auth.IsNotTrickedByTheSpellingOfAPath") {
  ApiTestServer api(says("x"), with_keys());
  for (const char* path : {"/v1/%63hat/completions",
                           "//v1/chat/completions",
                           "/health/../v1/models",
                           "/v1/models?x=/health",
                           "/v1/chat/completions/",
                           "/V1/models",
                           "/health%2f..%2fv1%2fmodels"}) {
    CAPTURE(path);
    const int status = api.ask("POST", path, kBody).status;
    CHECK((status == 401 || status == 404 || status == 400 || status == 405));
  }
  CHECK(api.ask("POST", "/v1/%63hat/completions", kBody).status == 401);
}

TEST_CASE("Auth.NeedsNoKeyOnTheMetricsPort") {
  ApiTestServer api(says("x"), with_keys());
  HttpServer probes(probe_http_options(&api.app));
  register_probe_routes(probes, api.app);
  REQUIRE(probes.start(listen_on("127.0.0.1", 0).value()).ok());
  RawClient client(probes.port());
  REQUIRE(client.send("GET /config-info HTTP/1.1\r\nHost: x\r\n\r\n"));
  CHECK(client.read_response()->status == 200);
  REQUIRE(client.send(ApiTestServer::request_text("POST", kChat, kBody)));
  CHECK(client.read_response()->status == 404);
}

TEST_CASE("Cors.LetsOnlyAllowedOriginsRead") {
  AppOptions options;
  options.allowed_origins = {"https://a.example", "https://b.example"};
  ApiTestServer api(says("x"), options);
  api.run();
  const ClientResponse allowed = api.post(kChat, kBody, "Origin: https://b.example\r\n");
  CHECK(allowed.header("Access-Control-Allow-Origin") == "https://b.example");
  CHECK(allowed.header("Vary") == "Origin");
  const ClientResponse other = api.post(kChat, kBody, "Origin: https://evil.example\r\n");
  CHECK(other.header("Access-Control-Allow-Origin").empty());
  const ClientResponse preflight =
      api.ask("OPTIONS",
              kChat,
              "",
              "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n"
              "Access-Control-Request-Headers: authorization,x-stainless-os\r\n");
  CHECK(preflight.status == 204);
  CHECK(preflight.header("Access-Control-Allow-Origin") == "https://a.example");
  CHECK(preflight.header("Access-Control-Allow-Headers") == "authorization,x-stainless-os");
  CHECK(preflight.header("Access-Control-Allow-Methods").find("POST") != std::string::npos);
}

TEST_CASE("Cors.IsOffByDefaultAndOpenWithAStar") {
  ApiTestServer closed(says("x"));
  CHECK(closed.get("/v1/models", "Origin: https://a.example\r\n")
            .header("Access-Control-Allow-Origin")
            .empty());
  AppOptions options;
  options.allowed_origins = {"*"};
  ApiTestServer open(says("x"), options);
  CHECK(open.get("/v1/models", "Origin: https://a.example\r\n")
            .header("Access-Control-Allow-Origin") == "*");
}

TEST_CASE("RequestId.IsTakenGivenAndPartOfTheAnswersId") {
  ApiTestServer api(says("x"));
  api.run();
  const ClientResponse given = api.post(kChat, kBody, "X-Request-Id: mine-1\r\n");
  CHECK(given.header("X-Request-Id") == "mine-1");
  CHECK(JsonText(given.body).text("/id") == "chatcmpl-mine-1");
  CHECK(api.dispatcher.submitted().at(0).request_id == "mine-1");

  const ClientResponse made = api.post(kChat, kBody);
  CHECK("chatcmpl-" + made.header("X-Request-Id") == JsonText(made.body).text("/id"));

  const ClientResponse forged = api.post(kChat, kBody, "X-Request-Id: a b<c>\r\n");
  CHECK(forged.status == 200);
  CHECK(forged.header("X-Request-Id") != "a b<c>");

  const ClientResponse in_body = api.post(
      kChat,
      R"({"messages":[{"role":"user","content":"hi"}],"request_id":"body-id","stream":true})",
      "X-Request-Id: head-id\r\n");
  CHECK(in_body.header("X-Request-Id") == "head-id");
  CHECK(JsonText(events_of(in_body.body).at(0)).text("/id") == "chatcmpl-body-id");

  CHECK(api.get("/health", "X-Request-Id: probe\r\n").header("X-Request-Id") == "probe");
  CHECK_FALSE(api.post(kChat, "{}").header("X-Request-Id").empty());
}

TEST_CASE("NamedRank.IsPassedToTheDispatcher") {
  ApiTestServer api(says("x"));
  api.run();
  CHECK(api.post(kChat, kBody, "X-data-parallel-rank: 3\r\n").status == 200);
  CHECK(api.dispatcher.ranks().at(0) == Rank(3));
  CHECK(api.post(kChat, kBody).status == 200);
  CHECK_FALSE(api.dispatcher.ranks().at(1));
  for (const char* bad : {"-1", "x", "1x", "99999999999"}) {
    CHECK(api.post(kChat, kBody, "X-data-parallel-rank: " + std::string(bad) + "\r\n").status ==
          400);
  }
}

TEST_CASE("NamedRank.AnAnswerSaysWhichRankServedIt") {
  ApiTestServer api(says("x"));
  api.run();
  const std::string stream = R"({"messages":[{"role":"user","content":"hi"}],"stream":true})";
  for (const std::string& body : {std::string(kBody), stream}) {
    CHECK(api.post(kChat, body).header("X-Data-Parallel-Rank") == "0");
    CHECK(api.post(kChat, body, "X-Data-Parallel-Rank: 3\r\n").header("X-Data-Parallel-Rank") ==
          "3");
  }
  CHECK(api.post(kChat, "{}").header("X-Data-Parallel-Rank").empty());
}

}  // namespace
}  // namespace flotilla
