#include "engine/dispatch/queue_server.h"

#include <doctest/doctest.h>

#include <random>
#include <thread>

#include "engine/dispatch/queue_messages.h"
#include "engine/null_engine.h"
#include "tests/fakes/queue_client.h"

using namespace flotilla;

namespace {

// A rank that says 1, 2, 3, 1, 2, 3, …
struct Rig {
  explicit Rig(double rate = 2000) {
    engine = make_null_engine(
        {.text = {1, 2, 3},
         .tokens_per_second = rate,
         .limits = {.max_model_len = 1000, .vocab_size = 10, .max_prompt_tokens = 999}});
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd.get(), 16) == 0);
    socklen_t size = sizeof address;
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    auto started = QueueServer::start(
        std::move(fd),
        {.rank = Rank(3), .instance_id = "me", .model_digest = "abc", .secret = "s"},
        *engine);
    REQUIRE_MESSAGE(started.ok(), started.status().message());
    server = std::move(*started);
  }
  void wait_until_idle() {
    for (int i = 0; i < 3000 && engine->load().running > 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(engine->load().running == 0);
  }
  std::unique_ptr<Engine> engine;
  std::unique_ptr<QueueServer> server;
  int port = 0;
};

wire::ToRank submit(uint64_t id, uint32_t max_tokens, uint64_t generation = 0) {
  wire::ToRank message;
  GenerationRequest r;
  r.id = id;
  r.generation = generation;
  r.prompt = {5};
  r.sampling.max_tokens = max_tokens;
  to_wire(r, std::chrono::steady_clock::now(), message.mutable_submit());
  return message;
}

}  // namespace

TEST_CASE("QueueServer.SubmitsAndGivesTokensInOrder") {
  Rig rig;
  QueueClient client(rig.port);
  const wire::FromRank hello = client.shake_hands("s");
  REQUIRE(hello.has_accepted());
  CHECK(hello.accepted().rank() == 3);
  CHECK(hello.accepted().model_digest() == "abc");
  client.send(submit(7, 5));
  std::vector<TokenId> tokens;
  uint32_t next = 0;
  for (const wire::TokenBatch& b : client.run_to_end(7)) {
    CHECK(b.first_index() == next);
    next += static_cast<uint32_t>(b.tokens_size());
    tokens.insert(tokens.end(), b.tokens().begin(), b.tokens().end());
  }
  CHECK(tokens == std::vector<TokenId>{1, 2, 3, 1, 2});
}

TEST_CASE("QueueServer.RefusesAClientWithoutTheSecretBeforeItReadsAnythingElse") {
  Rig rig;
  {
    QueueClient client(rig.port);
    CHECK(client.shake_hands("wrong").protocol_error() ==
          "wrong answer: the cluster secrets differ");
    CHECK_FALSE(client.receive().has_value());
  }
  {
    QueueClient client(rig.port);
    client.receive();
    client.send(submit(1, 5));
    CHECK(client.receive()->protocol_error() == "wrong answer: the cluster secrets differ");
  }
  CHECK(rig.engine->load().running == 0);
}

TEST_CASE("QueueServer.ARecordedAnswerIsOfNoUse") {
  Rig rig;
  QueueClient first(rig.port);
  const std::string nonce(kNonceBytes, 'n');
  const std::string challenge = first.receive()->challenge().nonce();
  wire::ToRank answer;
  answer.mutable_answer()->set_nonce(nonce);
  answer.mutable_answer()->set_proof(client_proof("s", "queue", challenge, nonce));
  first.send(answer);
  CHECK(first.receive()->has_accepted());
  QueueClient second(rig.port);
  second.receive();
  second.send(answer);
  CHECK(second.receive()->protocol_error() == "wrong answer: the cluster secrets differ");
}

TEST_CASE("QueueServer.NeedsASecret") {
  Rig rig;
  CHECK(QueueServer::start(UniqueFd(::socket(AF_INET, SOCK_STREAM, 0)), {}, *rig.engine)
            .status()
            .message()
            .starts_with("the queue port needs a cluster secret"));
}

TEST_CASE("QueueServer.CancelEndsASequence") {
  Rig rig(50);
  QueueClient client(rig.port);
  client.shake_hands("s");
  client.send(submit(7, 900));
  CHECK(client.receive()->tokens().id() == 7);
  wire::ToRank cancel;
  cancel.mutable_cancel()->set_id(7);
  cancel.mutable_cancel()->set_generation(1);  // not the one that runs
  client.send(cancel);
  cancel.mutable_cancel()->set_generation(0);
  client.send(cancel);
  CHECK(client.run_to_end(7).back().finish() == wire::TokenBatch::CANCELLED);
}

TEST_CASE("QueueServer.ANewerGenerationReplacesAnOlderAndAnOlderIsRefused") {
  Rig rig(100);
  QueueClient client(rig.port);
  client.shake_hands("s");
  client.send(submit(7, 900, 4));
  CHECK(client.receive()->tokens().generation() == 4);
  client.send(submit(7, 900, 4));  // a replay
  client.send(submit(7, 3, 5));
  bool refused = false;
  for (const wire::TokenBatch& b : client.run_to_end(7)) {
    if (b.finish() != wire::TokenBatch::ERROR) continue;
    CHECK(b.error() == "generation 4 of request 7 is not newer than 4, which runs");
    refused = true;
  }
  REQUIRE(refused);
  const auto rest = client.run_to_end(7);
  CHECK(rest.back().generation() == 5);
  CHECK(rest.back().finish() == wire::TokenBatch::LENGTH);
  for (const wire::TokenBatch& b : rest) {
    if (b.generation() == 4) CHECK(b.finish() == wire::TokenBatch::RUNNING);
  }
}

TEST_CASE("QueueServer.ABadRequestIsAnErrorOfThatRequestOnly") {
  Rig rig;
  QueueClient client(rig.port);
  client.shake_hands("s");
  wire::ToRank bad = submit(1, 5);
  bad.mutable_submit()->add_prompt(99);
  client.send(bad);
  client.send(submit(2, 1));
  const auto errors = client.run_to_end(1);
  CHECK(errors.back().error() == "the prompt has token id 99, the vocabulary is 0 to 9");
  CHECK(errors.back().error_code() == static_cast<uint32_t>(StatusCode::kInvalidArgument));
  CHECK(client.run_to_end(2).back().finish() == wire::TokenBatch::LENGTH);
}

TEST_CASE("QueueServer.AClientThatVanishesMidStreamLeavesNothingRunning") {
  Rig rig(100);
  for (int i = 0; i < 5; ++i) {
    QueueClient client(rig.port);
    client.shake_hands("s");
    for (uint64_t id = 0; id < 10; ++id) client.send(submit(id, 900));
    client.receive();
  }
  rig.wait_until_idle();
}

TEST_CASE("QueueServer.LoadAndDrain") {
  Rig rig(50);
  QueueClient client(rig.port);
  client.shake_hands("s");
  client.send(submit(1, 20));
  client.receive();
  wire::ToRank query;
  query.mutable_load_query();
  client.send(query);
  while (true) {
    const auto message = client.receive();
    if (!message->has_load()) continue;
    CHECK(message->load().running() == 1);
    break;
  }
  wire::ToRank drain;
  drain.mutable_drain();
  client.send(drain);
  client.send(submit(2, 5));
  bool refused = false;
  while (true) {
    const auto message = client.receive();
    if (!message->has_tokens()) continue;
    if (message->tokens().id() == 2) {
      CHECK(message->tokens().error_code() == static_cast<uint32_t>(StatusCode::kUnavailable));
      refused = true;
    } else if (message->tokens().finish() == wire::TokenBatch::LENGTH) {
      break;  // the running one finished whole
    }
  }
  CHECK(refused);
}

TEST_CASE("QueueServer.SurvivesGarbage") {
  Rig rig;
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    QueueClient client(rig.port);
    if (round % 2 == 0) client.shake_hands("s");
    std::string bytes(random() % 200, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (round % 3 == 0 && bytes.size() >= 4) {  // a sound length before nonsense
      const auto length = static_cast<uint32_t>(bytes.size() - 4);
      std::memcpy(bytes.data(), &length, 4);
    }
    client.send_bytes(bytes);
  }
  QueueClient client(rig.port);
  REQUIRE(client.shake_hands("s").has_accepted());
  client.send(submit(1, 1));
  CHECK(client.run_to_end(1).back().finish() == wire::TokenBatch::LENGTH);
  QueueClient huge(rig.port);
  huge.shake_hands("s");
  huge.send_bytes(std::string_view("\xff\xff\xff\xff", 4));
  CHECK(huge.receive()->protocol_error() == "frame of 4294967295 bytes, the limit is 16777216");
}

TEST_CASE("QueueServer.AClientThatDoesNotReadIsCutOff") {
  Rig rig(2000);
  QueueClient client(rig.port);
  client.shake_hands("s");
  wire::ToRank message = submit(0, 900);
  message.mutable_submit()->mutable_sampling()->set_logprobs(0);
  // 16 MiB wait for it long before all of these have ended; only then the rank is idle.
  for (uint64_t id = 0; id < 4000; ++id) {
    message.mutable_submit()->set_id(id);
    client.send(message);
  }
  rig.wait_until_idle();
}

TEST_CASE("QueueMessages.EveryFieldOfARequestSurvivesTheWire") {
  GenerationRequest r;
  r.id = 1;
  r.generation = 2;
  r.request_id = "x";
  r.prompt = {1, 2};
  r.produced = {3};
  r.seed = ~0ull;
  r.choice = 4;
  const auto now = std::chrono::steady_clock::now();
  r.deadline = now + std::chrono::milliseconds(1500);
  r.sampling = {.temperature = 0.5f,
                .top_p = 0.6f,
                .top_k = 7,
                .min_p = 0.1f,
                .presence_penalty = 1,
                .frequency_penalty = -1,
                .repetition_penalty = 1.5f,
                .logit_bias = {{5, 2.5f}},
                .bad_words = {{1, 2}, {3}},
                .min_tokens = 8,
                .max_tokens = 9,
                .stop_token_ids = {4},
                .ignore_eos = true,
                .logprobs = 3,
                .prompt_logprobs = 2};
  wire::Submit wire;
  to_wire(r, now, &wire);
  const GenerationRequest back = from_wire(wire, now);
  wire::Submit again;
  to_wire(back, now, &again);
  CHECK(wire.SerializeAsString() == again.SerializeAsString());
  CHECK(back.deadline == r.deadline);
  CHECK(back.sampling.bad_words == r.sampling.bad_words);
  CHECK(back.sampling.stop_token_ids == r.sampling.stop_token_ids);
  CHECK(back.sampling.logit_bias[0].bias == 2.5f);
  CHECK(back.produced == r.produced);
  CHECK(back.seed == r.seed);
}
