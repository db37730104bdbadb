#include "engine/null_engine.h"

#include <doctest/doctest.h>

#include <map>

#include "common/mutex.h"

using namespace flotilla;

namespace {

struct Counter final : TokenSink {
  void on_tokens(std::span<TokenBatch> batches) override {
    MutexLock lock(mutex);
    for (TokenBatch& b : batches) {
      tokens[b.id].insert(tokens[b.id].end(), b.tokens.begin(), b.tokens.end());
      if (b.finish != FinishReason::kRunning) finished[b.id] = b.finish;
    }
    changed.notify_all();
  }
  bool wait(size_t n) {
    MutexLock lock(mutex);
    return changed.wait_until(lock,
                              std::chrono::steady_clock::now() + std::chrono::seconds(30),
                              [&] { return finished.size() >= n; });
  }
  Mutex mutex;
  CondVar changed;
  std::map<uint64_t, std::vector<TokenId>> tokens;
  std::map<uint64_t, FinishReason> finished;
};

GenerationRequest request(uint64_t id, uint32_t n) {
  GenerationRequest r;
  r.id = id;
  r.prompt = {1};
  r.sampling.max_tokens = n;
  return r;
}

NullEngineOptions options(double rate) {
  return {.text = {4, 5, 6},
          .tokens_per_second = rate,
          .limits = {.max_model_len = 100, .vocab_size = 10, .max_prompt_tokens = 99}};
}

}  // namespace

TEST_CASE("NullEngine.RepeatsItsTextAtTheGivenRate") {
  auto engine = make_null_engine(options(100));
  Counter counter;
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(engine->submit(request(1, 20), &counter).ok());
  REQUIRE(engine->submit(request(2, 5), &counter).ok());
  REQUIRE(counter.wait(2));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  CHECK(took.count() >= 0.18);
  CHECK(counter.tokens[1].size() == 20);
  CHECK(counter.tokens[2] == std::vector<TokenId>{4, 5, 6, 4, 5});
  CHECK(counter.finished[2] == FinishReason::kLength);
}

TEST_CASE("NullEngine.CancelsRefusesAndDrains") {
  auto engine = make_null_engine(options(50));
  Counter counter;
  CHECK(engine->submit(request(1, 0), &counter).code() == StatusCode::kInvalidArgument);
  REQUIRE(engine->submit(request(1, 90), &counter).ok());
  REQUIRE(engine->submit(request(2, 10), &counter).ok());
  engine->cancel(&counter, 1);
  engine->begin_drain();
  CHECK(engine->submit(request(3, 1), &counter).code() == StatusCode::kUnavailable);
  CHECK(engine->wait_drained(std::chrono::steady_clock::now() + std::chrono::seconds(30)));
  CHECK(counter.finished[1] == FinishReason::kCancelled);
  CHECK(counter.tokens[2].size() == 10);
}

TEST_CASE("NullEngine.EndsRunningSequencesWhenItStops") {
  auto engine = make_null_engine(options(10));
  Counter counter;
  REQUIRE(engine->submit(request(1, 90), &counter).ok());
  engine->stop();
  CHECK(counter.finished[1] == FinishReason::kCancelled);
}
