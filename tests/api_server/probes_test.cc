// Probes, metrics, models, versions: everything that is no generation.
#include "api_server/routes/health.h"
#include "tests/api_server/api_test_server.h"
#include "tests/api_server/http/http_test_server.h"

namespace flotilla {
namespace {

constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kBody = R"({"messages":[{"role":"user","content":"hi"}]})";

EngineHealth health(EngineState state, double stalled = 0, bool degraded = false) {
  return {.state = state, .degraded = degraded, .seconds_without_progress = stalled, .detail = ""};
}

TEST_CASE("Vitality.TellsAliveFromReady") {
  struct Expectation {
    EngineHealth health;
    bool draining;
    bool alive, ready;
    std::string status;
  };
  for (const Expectation& e :
       {Expectation{health(EngineState::kStarting), false, false, false, "loading"},
        {health(EngineState::kServing), false, true, true, "ok"},
        {health(EngineState::kServing), true, true, false, "draining"},
        {health(EngineState::kPaused), false, true, false, "paused"},
        {health(EngineState::kPaused, 100), false, true, false, "paused"},
        {health(EngineState::kServing, 29), false, true, true, "ok"},
        {health(EngineState::kServing, 31), false, false, false, "stalled"},
        {health(EngineState::kServing, 31), true, false, false, "stalled"},
        {health(EngineState::kFailed), false, false, false, "failed"}}) {
    CAPTURE(e.status);
    const Vitality v = vitality_of(e.health, e.draining, 30);
    CHECK(v.alive == e.alive);
    CHECK(v.ready == e.ready);
    CHECK(v.status == e.status);
  }
}

TEST_CASE("Probes.FollowTheEngine") {
  ApiTestServer api(says("x"));
  CHECK(api.get("/health").status == 200);
  CHECK(api.get("/ping").status == 200);
  CHECK(api.post("/ping", "").status == 200);
  CHECK(JsonText(api.get("/ready").body).text("/status") == "ready");

  api.dispatcher.set_health({.state = EngineState::kStarting,
                             .degraded = false,
                             .seconds_without_progress = 0,
                             .detail = "loading 37 %"});
  const ClientResponse loading = api.get("/ready");
  CHECK(loading.status == 503);
  CHECK(JsonText(loading.body).text("/detail") == "loading 37 %");
  CHECK(api.get("/health").status == 503);

  api.dispatcher.set_health(health(EngineState::kServing, 1000));
  CHECK(api.get("/health").status == 503);

  api.dispatcher.set_health(health(EngineState::kServing, 0, true));
  const ClientResponse degraded = api.get("/ready");
  CHECK(degraded.status == 200);
  CHECK(JsonText(degraded.body).at("/degraded") == "true");
}

TEST_CASE("Probes.StayHealthyWhileTheEngineIsBusy") {
  ApiTestServer api([](const GenerationRequest&) {
    return FakeScript{.tokens = byte_ids("x"), .endless = true};
  });
  std::vector<RawClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(api.client());
    REQUIRE(clients.back().send(ApiTestServer::request_text("POST", kChat, kBody)));
  }
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 20; }));
  CHECK(api.get("/health").status == 200);
  CHECK(api.get("/ready").status == 200);
}

TEST_CASE("Drain.RefusesNewGenerationsAndFinishesRunningOnes") {
  ApiTestServer api(says("done"));
  RawClient running = api.client();
  REQUIRE(running.send(ApiTestServer::request_text("POST", kChat, kBody)));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 1; }));

  api.app.serving.begin_drain();
  const ClientResponse refused = api.post(kChat, kBody);
  CHECK(refused.status == 503);
  CHECK(refused.header("Retry-After") == "1");
  CHECK(JsonText(refused.body).text("/error/message").find("draining") != std::string::npos);
  CHECK(api.post("/v1/completions", R"({"prompt":"x"})").status == 503);
  const ClientResponse ready = api.get("/ready");
  CHECK(ready.status == 503);
  CHECK(JsonText(ready.body).text("/status") == "draining");
  CHECK(api.get("/health").status == 200);
  CHECK(api.post("/tokenize", R"({"prompt":"x"})").status == 200);

  api.dispatcher.run_all();
  const auto answer = running.read_response();
  REQUIRE(answer);
  CHECK(JsonText(answer->body).text("/choices/0/message/content") == "done");
}

TEST_CASE("Drain.IsSeenWhenTheEngineStartsIt") {
  ApiTestServer api(says("x"));
  api.dispatcher.draining = true;
  CHECK(api.post(kChat, kBody).status == 503);
  CHECK(JsonText(api.get("/ready").body).text("/status") == "draining");
}

TEST_CASE("Metrics.ShowARequestUnderFastDeploysAndVllmsNames") {
  ApiTestServer api(says("abc", FinishReason::kLength));
  api.run();
  api.post(kChat, kBody);
  // An answer is counted after its last byte, so its client may be faster.
  REQUIRE(eventually(
      [&] { return api.registry.text().find("http_requests_total") != std::string::npos; }));
  const ClientResponse r = api.get("/metrics");
  CHECK(r.status == 200);
  CHECK(r.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8");
  const std::string labels = "{dp_rank=\"0\",model_name=\"test-model\"";
  for (const std::string& line :
       {"fastdeploy:requests_number_total" + labels + "} 1",
        "vllm:request_success_total" + labels + ",finished_reason=\"length\"} 1",
        "vllm:time_to_first_token_seconds_count" + labels + "} 1",
        "fastdeploy:time_per_output_token_seconds_count" + labels + "} 2",
        "fastdeploy:request_generation_tokens_sum" + labels + "} 3",
        "http_requests_total" + labels +
            ",method=\"POST\",path=\"/v1/chat/completions\",status_code=\"200\"} 1",
        "flotilla_generations_in_flight" + labels + "} 0"}) {
    CAPTURE(line);
    CHECK(r.body.find(line + "\n") != std::string::npos);
  }
  CHECK(r.body.find("flotilla_http_refused_total" + labels +
                    ",reason=\"no_such_route\",server=\"api\"} 0\n") != std::string::npos);
}

TEST_CASE("Metrics.NeverShowAPathOrAMethodThatAClientMadeUp") {
  ApiTestServer api(says("x"));
  api.ask("BREW", "/secret/tea");
  api.get("/v1/models/abc");
  REQUIRE(
      eventually([&] { return api.registry.text().find("/v1/models/*") != std::string::npos; }));
  const std::string text = api.get("/metrics").body;
  CHECK(text.find("tea") == std::string::npos);
  CHECK(text.find("BREW") == std::string::npos);
  CHECK(text.find("path=\"unmatched\"") != std::string::npos);
}

TEST_CASE("Models.AreListedAndFoundByName") {
  ApiTestServer api(says("x"));
  const JsonText list(api.get("/v1/models").body);
  CHECK(list.text("/object") == "list");
  CHECK(list.text("/data/0/id") == "/models/test-model");
  CHECK(list.text("/data/0/object") == "model");
  CHECK(list.at("/data/0/max_model_len") == "4096");
  CHECK(JsonText(api.get("/v1/models/test-model").body).text("/id") == "test-model");
  CHECK(JsonText(api.get("/v1/models/%2Fmodels%2Ftest-model").body).text("/id") ==
        "/models/test-model");
  const ClientResponse unknown = api.get("/v1/models/other");
  CHECK(unknown.status == 404);
  CHECK(JsonText(unknown.body).text("/error/code") == "model_not_found");
}

TEST_CASE("Load.IsRealLoad") {
  ApiTestServer api([](const GenerationRequest&) {
    return FakeScript{.tokens = byte_ids("x"), .endless = true};
  });
  RawClient client = api.client();
  REQUIRE(client.send(ApiTestServer::request_text("POST", kChat, kBody)));
  REQUIRE(eventually([&] { return api.dispatcher.num_live() == 1; }));
  const JsonText load(api.get("/load").body);
  CHECK(load.at("/server_load") == "1");
  CHECK(load.at("/running") == "1");
  CHECK(load.at("/blocks_total") == "256");
  CHECK(load.at("/draining") == "false");
}

TEST_CASE("Version.AndConfigInfoAreJson") {
  AppOptions options;
  options.serving.config_info = R"({"max_num_seqs":64})";
  ApiTestServer api(says("x"), options);
  CHECK(JsonText(api.get("/version").body).text("/version") == FLOTILLA_VERSION);
  CHECK(api.get("/config-info").body == R"({"max_num_seqs":64})");
  ApiTestServer bare(says("x"));
  CHECK(bare.get("/config-info").body == "{}");
}

TEST_CASE("Tokenize.AnswersAsVllmDoes") {
  ApiTestServer api(says("x"));
  CHECK(api.post("/tokenize", R"({"prompt":"hi"})").body ==
        R"({"count":2,"max_model_len":4096,"tokens":[104,105],"token_strs":null})");
  CHECK(JsonText(api.post("/tokenize", R"({"prompt":"hi","return_token_strs":true})").body)
            .at("/token_strs") == R"(["h","i"])");
  CHECK(JsonText(api.post("/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})").body)
            .at("/count") == "20");
  CHECK(
      JsonText(
          api.post("/tokenize",
                   R"({"messages":[{"role":"user","content":"hi"}],"add_generation_prompt":false})")
              .body)
          .at("/count") == "9");
  CHECK(JsonText(api.post("/tokenize", R"({"prompt":"<|end|>"})").body).at("/tokens") == "[256]");
  CHECK(api.post("/tokenize", R"({"prompt":"hi","model":"other"})").status == 404);
  CHECK(api.post("/tokenize", R"({})").status == 400);
  CHECK(api.post("/tokenize", R"({"messages":[{"role":"user","content":"raise"}]})").status == 400);
}

TEST_CASE("Detokenize.IsTheWayBack") {
  ApiTestServer api(says("x"));
  CHECK(api.post("/detokenize", R"({"tokens":[104,105,256]})").body == R"({"prompt":"hi<|end|>"})");
  CHECK(api.post("/detokenize", R"({"tokens":[104],"model":"other"})").status == 404);
  CHECK(api.post("/detokenize", R"({"tokens":[300]})").status == 400);
}

}  // namespace
}  // namespace flotilla
