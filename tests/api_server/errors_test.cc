// What can go wrong with a generation, and what its client sees.
#include <mutex>

#include "tests/api_server/api_test_server.h"
#include "tests/api_server/http/http_test_server.h"

namespace flotilla {
namespace {

constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kBody = R"({"messages":[{"role":"user","content":"hi"}]})";
constexpr std::string_view kStream =
    R"({"messages":[{"role":"user","content":"hi"}],"stream":true})";

FakeDispatcher::Script endless() {
  return
      [](const GenerationRequest&) { return FakeScript{.tokens = byte_ids("x"), .endless = true}; };
}

TEST_CASE("Errors.RefusalOfTheEngineHasItsHttpStatusAlsoForAStream") {
  for (const std::string_view body : {kBody, kStream}) {
    ApiTestServer api(says("x"));
    api.dispatcher.on_submit = [](const GenerationRequest&, uint64_t) {
      return resource_exhausted("the queue is full (2048 requests)");
    };
    const ClientResponse r = api.post(kChat, body);
    CHECK(r.status == 429);
    CHECK(r.header("Retry-After") == "1");
    CHECK(JsonText(r.body).text("/error/message") == "the queue is full (2048 requests)");
    CHECK(api.app.serving.admission.held() == 0);
    CHECK(api.app.serving.hub.num_expected() == 0);
  }
}

TEST_CASE("Errors.RefusalOfOneChoiceCancelsTheOthers") {
  ApiTestServer api(endless());
  api.dispatcher.on_submit = [](const GenerationRequest&, uint64_t index) {
    return index < 2 ? ok_status() : unavailable("this rank is gone");
  };
  const ClientResponse r =
      api.post(kChat, R"({"messages":[{"role":"user","content":"hi"}],"n":4})");
  CHECK(r.status == 503);
  CHECK(api.dispatcher.cancelled().size() == 2);
  CHECK(api.app.serving.hub.num_expected() == 0);
}

TEST_CASE("Errors.FailureBeforeTheFirstTokenHasItsHttpStatusAlsoForAStream") {
  for (const std::string_view body : {kBody, kStream}) {
    ApiTestServer api([](const GenerationRequest&) {
      return FakeScript{.finish = FinishReason::kError, .error = unavailable("the rank is gone")};
    });
    api.run();
    const ClientResponse r = api.post(kChat, body);
    CHECK(r.status == 503);
    CHECK(JsonText(r.body).text("/error/type") == "service_unavailable_error");
  }
}

TEST_CASE("Errors.FailureInsideAStreamIsAnEventBeforeDone") {
  ApiTestServer api([](const GenerationRequest&) {
    return FakeScript{.tokens = byte_ids("ab"),
                      .finish = FinishReason::kError,
                      .error = unavailable("the rank is gone")};
  });
  api.run(std::chrono::milliseconds(1));
  const ClientResponse r = api.post(kChat, kStream);
  CHECK(r.status == 200);
  const auto events = events_of(r.body);
  CHECK(events.back() == "[DONE]");
  CHECK(JsonText(events.at(events.size() - 2)).text("/error/message") == "the rank is gone");
}

TEST_CASE("Errors.FailureOfAWholeAnswerHasItsHttpStatusAndHidesInternals") {
  ApiTestServer api([](const GenerationRequest&) {
    return FakeScript{.tokens = byte_ids("ab"),
                      .finish = FinishReason::kError,
                      .error = internal_error("terminate called: secret")};
  });
  api.run();
  const ClientResponse r = api.post(kChat, kBody);
  CHECK(r.status == 500);
  CHECK(r.header("x-should-retry") == "false");
  CHECK(r.body.find("secret") == std::string::npos);
}

TEST_CASE("Errors.AWaitForAPlaceThatWasTooLongIsAnOverload") {
  AppOptions options;
  options.serving.max_waiting_time = std::chrono::seconds(5);
  ApiTestServer api(
      [](const GenerationRequest&) {
        return FakeScript{.finish = FinishReason::kError,
                          .error = deadline_exceeded("waited too long")};
      },
      options);
  api.run();
  const auto before = std::chrono::steady_clock::now();
  const ClientResponse r = api.post(kChat, kBody);
  CHECK(r.status == 429);
  const auto deadline = api.dispatcher.submitted().at(0).deadline;
  REQUIRE(deadline);
  CHECK(*deadline >= before + std::chrono::seconds(5));
}

TEST_CASE("Errors.AnEngineThatStopsIsAnErrorNotAnAnswer") {
  ApiTestServer api([](const GenerationRequest&) {
    return FakeScript{.tokens = byte_ids("ab"), .finish = FinishReason::kCancelled};
  });
  api.run();
  CHECK(api.post(kChat, kBody).status == 503);
}

TEST_CASE("Errors.InvalidRequestsNeverReachTheEngine") {
  ApiTestServer api(says("x"));
  for (const char* body : {"",
                           "[]",
                           "{",
                           R"({"messages":[]})",
                           R"({"messages":[{"role":"user","content":"x"}],"n":0})",
                           R"({"messages":[{"role":"user","content":"x"}],"tools":[{}]})"}) {
    const ClientResponse r = api.post(kChat, body);
    CHECK(r.status == 400);
    const JsonText json(r.body);
    CHECK_FALSE(json.text("/error/message").empty());
    CHECK(json.text("/error/type") == "invalid_request_error");
  }
  CHECK(api.dispatcher.submitted().empty());
  CHECK(api.app.serving.admission.held() == 0);
}

TEST_CASE("Errors.UnknownModelIs404AndKnownNamesAreServed") {
  ApiTestServer api(says("x"));
  api.run();
  const auto ask = [&](const std::string& model) {
    return api.post(kChat,
                    R"({"messages":[{"role":"user","content":"x"}],"model":")" + model + "\"}");
  };
  const ClientResponse unknown = ask("gpt-4");
  CHECK(unknown.status == 404);
  CHECK(JsonText(unknown.body).text("/error/code") == "model_not_found");
  CHECK(JsonText(unknown.body).text("/error/param") == "model");
  for (const char* name : {"/models/test-model", "test-model", "default"})
    CHECK(ask(name).status == 200);
  CHECK(JsonText(ask("test-model").body).text("/model") == "test-model");
  CHECK(JsonText(ask("default").body).text("/model") == "/models/test-model");
}

TEST_CASE("Errors.ServedNamesReplaceTheModelsPath") {
  AppOptions options;
  options.serving.served_model_names = {"ernie", "ernie-fast"};
  ApiTestServer api(says("x"), options);
  api.run();
  const auto status = [&](const std::string& model) {
    return api
        .post(kChat, R"({"messages":[{"role":"user","content":"x"}],"model":")" + model + "\"}")
        .status;
  };
  CHECK(status("ernie-fast") == 200);
  CHECK(status("default") == 200);
  CHECK(status("test-model") == 404);
  CHECK(JsonText(api.get("/v1/models").body).at("/data/1/id") == "\"ernie-fast\"");
}

TEST_CASE("Errors.OnlyJsonIsTakenAsABody") {
  ApiTestServer api(says("x"));
  api.run();
  CHECK(api.post(kChat, kBody, "Content-Type: text/plain\r\n").status == 415);
  CHECK(api.post(kChat, kBody, "Content-Type: application/x-www-form-urlencoded\r\n").status ==
        415);
  CHECK(api.post(kChat, kBody, "Content-Type: application/json; charset=utf-8\r\n").status == 200);
  CHECK(api.post(kChat, kBody, "Content-Type: application/vnd.api+json\r\n").status == 200);
  CHECK(api.post(kChat, kBody).status == 200);
  CHECK(api.post("/tokenize", R"({"prompt":"a"})", "Content-Type: text/plain\r\n").status == 415);
  CHECK(api.post("/detokenize", R"({"tokens":[]})", "Content-Type: text/plain\r\n").status == 415);
}

TEST_CASE("Errors.UnknownPathsAndMethodsAnswerInOpenAisShape") {
  ApiTestServer api(says("x"));
  const ClientResponse path = api.get("/v2/nothing");
  CHECK(path.status == 404);
  CHECK(JsonText(path.body).text("/error/code") == "unknown_url");
  const ClientResponse method = api.get(kChat);
  CHECK(method.status == 405);
  CHECK(JsonText(method.body).text("/error/code") == "method_not_allowed");
}

TEST_CASE("Errors.BeyondMaxConcurrencyIs429UntilAPlaceIsFree") {
  AppOptions options;
  options.serving.max_concurrency = 1;
  ApiTestServer api(endless(), options);
  RawClient first = api.client();
  REQUIRE(first.send(ApiTestServer::request_text("POST", kChat, kStream)));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 1; }));
  const ClientResponse refused = api.post(kChat, kBody);
  CHECK(refused.status == 429);
  CHECK(refused.header("Retry-After") == "1");
  CHECK(JsonText(refused.body).text("/error/message").find("max-concurrency") != std::string::npos);
  first.close();
  REQUIRE(eventually([&] { return api.app.serving.admission.held() == 0; }));
}

TEST_CASE("Errors.TenThousandFailingRequestsLeakNoPlace") {
  ApiTestServer api(says("x"));
  api.dispatcher.on_submit = [](const GenerationRequest&, uint64_t) { return unavailable("no"); };
  RawClient client = api.client();
  for (int i = 0; i < 10000; ++i) {
    const std::string_view body = i % 2 == 0 ? kBody : std::string_view("{}");
    REQUIRE(client.send(ApiTestServer::request_text("POST", kChat, body)));
    const auto response = client.read_response();
    REQUIRE(response);
    REQUIRE(response->status == (i % 2 == 0 ? 503 : 400));
  }
  CHECK(api.app.serving.admission.held() == 0);
  CHECK(api.app.serving.hub.num_expected() == 0);
}

TEST_CASE("Errors.TheSameRequestIdTwiceIsNoConflict") {
  ApiTestServer api(says("x"));
  const std::string body = R"({"messages":[{"role":"user","content":"x"}],"request_id":"twin"})";
  RawClient first = api.client(), second = api.client();
  REQUIRE(first.send(ApiTestServer::request_text("POST", kChat, body)));
  REQUIRE(second.send(ApiTestServer::request_text("POST", kChat, body)));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 2; }));
  api.dispatcher.run_all();
  CHECK(JsonText(first.read_response()->body).text("/id") == "chatcmpl-twin");
  CHECK(JsonText(second.read_response()->body).text("/id") == "chatcmpl-twin");
}

// A vanished client, in every state of its request.
TEST_CASE("Disconnect.FreesTheSequenceInTheQueueWithAndWithoutAStream") {
  for (const std::string_view body : {kBody, kStream}) {
    ApiTestServer api(endless());
    RawClient client = api.client();
    REQUIRE(client.send(ApiTestServer::request_text("POST", kChat, body)));
    REQUIRE(eventually([&] { return api.dispatcher.num_live() == 1; }));
    client.close();
    CHECK(eventually([&] { return api.dispatcher.cancelled().size() == 1; }));
    CHECK(eventually([&] { return api.app.serving.admission.held() == 0; }));
    CHECK(api.app.serving.hub.num_expected() == 0);
  }
}

TEST_CASE("Disconnect.FreesAllChoicesInTheMiddleOfAStream") {
  ApiTestServer api(endless());
  RawClient client = api.client();
  REQUIRE(client.send(ApiTestServer::request_text(
      "POST", kChat, R"({"messages":[{"role":"user","content":"hi"}],"stream":true,"n":3})")));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 3; }));
  api.dispatcher.step();
  REQUIRE(client.read_until("\"content\":\"x\""));
  client.reset();
  CHECK(eventually([&] { return api.dispatcher.cancelled().size() == 3; }));
  api.dispatcher.step();
  CHECK(api.dispatcher.num_live() == 0);
  CHECK(eventually([&] { return api.app.serving.admission.held() == 0; }));
  CHECK(eventually([&] {
    return api.registry.text().find(
               "fastdeploy:request_success_total{dp_rank=\"0\",model_name=\"test-model\",finished_"
               "reason=\"abort\"} 3") != std::string::npos;
  }));
}

TEST_CASE("Disconnect.FreesASequenceWhoseWholeAnswerIsBeingMade") {
  ApiTestServer api(endless());
  RawClient client = api.client();
  REQUIRE(client.send(ApiTestServer::request_text("POST", kChat, kBody)));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 1; }));
  for (int i = 0; i < 5; ++i) api.dispatcher.step();
  client.close();
  CHECK(eventually([&] { return api.dispatcher.cancelled().size() == 1; }));
}

TEST_CASE("Disconnect.OfASlowReaderBoundsWhatIsKeptForIt") {
  ApiTestServer api(endless());
  RawClient client(api.server->port(), 4096);
  REQUIRE(client.send(ApiTestServer::request_text("POST", kChat, kStream)));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 1; }));
  // The client reads nothing: everything has to wait in its inbox, where a token costs a few bytes.
  api.dispatcher.run_all();
  REQUIRE(client.read_until("[DONE]"));
  CHECK(client.received().find("\"finish_reason\":\"length\"") != std::string::npos);
}

}  // namespace
}  // namespace flotilla
