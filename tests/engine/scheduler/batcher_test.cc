#include "engine/scheduler/batcher.h"

#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <random>

#include "tests/fakes/fake_model.h"

using namespace flotilla;

namespace {

constexpr TokenId kVocab = 1000;
constexpr TokenId kEos = 7;

struct NoSink final : TokenSink {
  void on_tokens(std::span<TokenBatch>) override {}
};

struct Stream {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kRunning;
  TokenBatch last;
  size_t batches_after_finish = 0;
};

// A batcher and a device, with `depth` steps in flight.
struct Rig {
  explicit Rig(const BatcherOptions& options, size_t d = 2)
      : batcher(options, nullptr),
        model(options.num_blocks, options.limits.block_size, options.limits.max_num_seqs, kVocab),
        depth(d) {}

  void add(uint64_t id,
           std::vector<TokenId> prompt,
           uint32_t max_tokens,
           SamplingParams params = {}) {
    GenerationRequest r;
    r.id = id;
    r.prompt = std::move(prompt);
    params.max_tokens = max_tokens;
    r.sampling = std::move(params);
    batcher.add(std::move(r), &sink);
  }
  // One turn of an engine: plans a step if there is room, else finishes one. False if nothing is
  // left to do.
  bool turn() {
    if (flying.size() < depth) {
      StepPlan plan = batcher.plan(Batcher::Clock::now());
      if (!plan.sequences.empty()) {
        CHECK(plan.num_tokens() <= 64);
        flying.push_back(std::move(plan));
        deliver();
        return true;
      }
    }
    if (flying.empty()) return false;
    // The device runs a step only now: it must not depend on what the host has learnt meanwhile.
    batcher.commit(model.run(flying.front()));
    flying.pop_front();
    deliver();
    return true;
  }
  void run() {
    for (int turns = 0; turn(); ++turns) REQUIRE(turns < 200000);
  }
  void abort_epoch(size_t steps_that_still_ran) {
    for (size_t i = 0; i < steps_that_still_ran && !flying.empty(); ++i) {
      batcher.commit(model.run(flying.front()));
      flying.pop_front();
    }
    flying.clear();
    batcher.rollback();
    deliver();
  }
  void deliver() {
    for (Batcher::Emission& e : batcher.take_emissions()) {
      Stream& s = streams[e.batch.id];
      if (s.finish != FinishReason::kRunning) ++s.batches_after_finish;
      CHECK(e.batch.first_index == s.tokens.size());
      s.tokens.insert(s.tokens.end(), e.batch.tokens.begin(), e.batch.tokens.end());
      s.finish = e.batch.finish;
      s.last = std::move(e.batch);
    }
  }

  Batcher batcher;
  FakeModel model;
  size_t depth;
  NoSink sink;
  std::deque<StepPlan> flying;
  std::map<uint64_t, Stream> streams;
};

BatcherOptions options(int32_t num_blocks = 100, bool prefix_caching = true) {
  return {.limits = {.max_num_seqs = 8, .max_num_batched_tokens = 64, .block_size = 4},
          .num_blocks = num_blocks,
          .max_model_len = 1000,
          .prefix_caching = prefix_caching,
          .eos_token_ids = {kEos}};
}

std::vector<TokenId> prompt(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> p;
  for (size_t i = 0; i < n; ++i) p.push_back(static_cast<TokenId>(8 + random() % (kVocab - 8)));
  return p;
}

// What the sequence alone yields, cut before the end-of-sequence token.
std::vector<TokenId> expected(const std::vector<TokenId>& p, size_t n) {
  std::vector<TokenId> tokens = fake_generation(p, n, kVocab);
  tokens.erase(std::find(tokens.begin(), tokens.end(), kEos), tokens.end());
  return tokens;
}

}  // namespace

TEST_CASE("Batcher.GivesEverySequenceTheTextItWouldHaveAlone") {
  for (const size_t depth : {size_t{1}, size_t{2}}) {
    for (const bool caching : {false, true}) {
      Rig rig(options(100, caching), depth);
      for (uint64_t id = 0; id < 30; ++id)
        rig.add(id, prompt(1 + id * 5, static_cast<unsigned>(id)), 40);
      rig.run();
      for (uint64_t id = 0; id < 30; ++id) {
        CHECK(rig.streams[id].tokens ==
              expected(prompt(1 + id * 5, static_cast<unsigned>(id)), 40));
        CHECK(rig.streams[id].finish != FinishReason::kRunning);
        CHECK(rig.streams[id].batches_after_finish == 0);
      }
      CHECK(rig.batcher.empty());
      CHECK(rig.batcher.load().blocks_used == 0);
    }
  }
}

TEST_CASE("Batcher.APoolOf10BlocksFinishes50RequestsWithUnchangedText") {
  for (const bool caching : {false, true}) {
    Rig rig(options(10, caching));
    for (uint64_t id = 0; id < 50; ++id)
      rig.add(id, prompt(1 + id % 20, static_cast<unsigned>(id)), 15);
    rig.run();
    for (uint64_t id = 0; id < 50; ++id) {
      CHECK(rig.streams[id].tokens == expected(prompt(1 + id % 20, static_cast<unsigned>(id)), 15));
    }
    CHECK(rig.batcher.load().blocks_used == 0);
  }
}

TEST_CASE("Batcher.TextDoesNotChangeHoweverOftenAnEpochEnds") {
  std::mt19937 random(5);
  Rig rig(options(30));
  for (uint64_t id = 0; id < 12; ++id)
    rig.add(id, prompt(1 + id * 3, static_cast<unsigned>(id)), 30);
  for (int turns = 0; rig.turn(); ++turns) {
    REQUIRE(turns < 200000);
    if (random() % 5 == 0) rig.abort_epoch(random() % 3);
  }
  for (uint64_t id = 0; id < 12; ++id) {
    CHECK(rig.streams[id].tokens == expected(prompt(1 + id * 3, static_cast<unsigned>(id)), 30));
  }
  CHECK(rig.batcher.load().blocks_used == 0);
}

TEST_CASE("Batcher.CancelledSequencesEndAtOnceAndLeaveNothing") {
  std::mt19937 random(9);
  Rig rig(options(20));
  for (uint64_t id = 0; id < 40; ++id)
    rig.add(id, prompt(1 + id % 17, static_cast<unsigned>(id)), 25);
  for (int turns = 0; rig.turn(); ++turns) {
    REQUIRE(turns < 200000);
    if (random() % 4 == 0) {
      const uint64_t id = random() % 40;
      const bool was_running = rig.streams[id].finish == FinishReason::kRunning;
      rig.batcher.cancel(&rig.sink, id);
      rig.deliver();
      if (was_running) CHECK(rig.streams[id].finish == FinishReason::kCancelled);
    }
  }
  for (auto& [id, stream] : rig.streams) CHECK(stream.batches_after_finish == 0);
  CHECK(rig.batcher.load().blocks_used == 0);
  CHECK(rig.batcher.empty());
}

TEST_CASE("Batcher.ReusesThePrefixThatAnotherSequenceComputedItsGeneratedTokensIncluded") {
  Rig rig(options());
  const std::vector<TokenId> p = prompt(20, 1);
  rig.add(1, p, 20);
  rig.run();
  const int64_t rows = rig.model.rows;
  std::vector<TokenId> follow_up = p;
  follow_up.insert(follow_up.end(), rig.streams[1].tokens.begin(), rig.streams[1].tokens.end());
  follow_up.push_back(500);
  rig.add(2, follow_up, 5);
  rig.run();
  // 20 + 20 tokens were known; the last of them was never computed, so nine of ten blocks are
  // whole.
  CHECK(rig.streams[2].last.cached_tokens == 36);
  CHECK(rig.model.rows - rows == 41 - 36 + 4);
  CHECK(rig.streams[2].tokens == expected(follow_up, 5));
}

TEST_CASE("Batcher.AWholeCachedPromptStillComputesItsLastBlock") {
  Rig rig(options());
  rig.add(1, prompt(16, 2), 3);
  rig.run();
  rig.add(2, prompt(16, 2), 3);
  rig.run();
  CHECK(rig.streams[2].last.cached_tokens == 12);
  CHECK(rig.streams[2].tokens == rig.streams[1].tokens);
}

TEST_CASE("Batcher.ChoicesOfOnePromptComputeItOnce") {
  Rig rig(options());
  for (uint64_t choice = 0; choice < 4; ++choice) rig.add(choice, prompt(40, 3), 2);
  rig.run();
  CHECK(rig.model.rows == 40 + 3 * 4 + 4);
}

TEST_CASE("Batcher.StopsBehindTheEndOfSequenceTokenUnlessToldOtherwise") {
  // Some prompt whose text alone meets the end-of-sequence token.
  unsigned seed = 0;
  while (expected(prompt(3, seed), 400).size() == 400) ++seed;
  Rig rig(options(400));
  rig.add(1, prompt(3, seed), 400);
  rig.add(2, prompt(3, seed), 400, {.ignore_eos = true});
  rig.run();
  CHECK(rig.streams[1].finish == FinishReason::kStop);
  CHECK(rig.streams[1].last.stop_token == kEos);
  CHECK(rig.streams[1].tokens == expected(prompt(3, seed), 400));
  CHECK(rig.streams[2].finish == FinishReason::kLength);
  CHECK(rig.streams[2].tokens.size() == 400);
}

TEST_CASE("Batcher.AStopTokenEndsTheTextAndIsNotPartOfIt") {
  const std::vector<TokenId> alone = expected(prompt(3, 1), 10);
  Rig rig(options());
  rig.add(1, prompt(3, 1), 10, {.stop_token_ids = {alone[4]}});
  rig.run();
  CHECK(rig.streams[1].tokens == std::vector<TokenId>(alone.begin(), alone.begin() + 4));
  CHECK(rig.streams[1].last.stop_token == alone[4]);
}

TEST_CASE("Batcher.GoesOnBehindTokensOfAnEarlierPlacement") {
  const std::vector<TokenId> alone = fake_generation(prompt(9, 1), 20, kVocab);
  Rig rig(options());
  GenerationRequest r;
  r.id = 1;
  r.prompt = prompt(9, 1);
  r.produced.assign(alone.begin(), alone.begin() + 12);
  r.sampling.max_tokens = 20;
  r.sampling.ignore_eos = true;
  rig.streams[1].tokens = r.produced;
  rig.batcher.add(std::move(r), &rig.sink);
  rig.run();
  CHECK(rig.streams[1].tokens == alone);
}

TEST_CASE("Batcher.GivesPromptLogprobsOnceAndOnlyForThePrompt") {
  Rig rig(options());
  rig.add(1, prompt(150, 4), 3, {.prompt_logprobs = 0});
  rig.run();
  // They came with the first batch; the stream keeps the last one.
  CHECK(rig.streams[1].last.prompt_logprobs.empty());
  Rig single(options());
  single.add(1, prompt(150, 4), 1, {.prompt_logprobs = 0});
  single.run();
  const auto& logprobs = single.streams[1].last.prompt_logprobs;
  REQUIRE(logprobs.size() == 150);
  CHECK(logprobs[0].chosen.token == -1);
  for (size_t i = 1; i < 150; ++i) CHECK(logprobs[i].chosen.token == prompt(150, 4)[i]);
}

TEST_CASE("Batcher.AWaitingRequestEndsAtItsDeadline") {
  Rig rig(options(10));
  const auto now = Batcher::Clock::now();
  GenerationRequest r;
  r.id = 1;
  r.prompt = prompt(3, 1);
  r.deadline = now + std::chrono::seconds(5);
  rig.batcher.add(std::move(r), &rig.sink);
  CHECK(rig.batcher.expire(now) == now + std::chrono::seconds(5));
  CHECK(rig.batcher.expire(now + std::chrono::seconds(5)) == Batcher::Clock::time_point::max());
  rig.deliver();
  CHECK(rig.streams[1].finish == FinishReason::kError);
  CHECK(rig.streams[1].last.error.code() == StatusCode::kDeadlineExceeded);
  CHECK(rig.batcher.empty());
}

TEST_CASE("Batcher.ChecksRequestsNamingWhatIsWrong") {
  const EngineLimits limits{.max_model_len = 100, .vocab_size = 10, .max_prompt_tokens = 3};
  const auto message = [&](auto change) {
    GenerationRequest r;
    r.prompt = {1};
    change(r);
    return check_request(r, limits).message();
  };
  CHECK(message([](GenerationRequest&) {}) == "");
  CHECK(message([](GenerationRequest& r) { r.prompt.clear(); }) == "the prompt has no tokens");
  CHECK(message([](GenerationRequest& r) {
          r.prompt = {1, 10};
        }) == "the prompt has token id 10, the vocabulary is 0 to 9");
  CHECK(message([](GenerationRequest& r) { r.produced = {-1}; }) ==
        "the produced text has token id -1, the vocabulary is 0 to 9");
  CHECK(message([](GenerationRequest& r) {
          r.prompt = {1, 2, 3, 4};
        }).starts_with("the prompt has 4 tokens, at most 3 fit"));
  CHECK(message([](GenerationRequest& r) { r.sampling.bad_words = {{}}; }) ==
        "bad_words holds an empty list of token ids");
  CHECK(message([](GenerationRequest& r) { r.sampling.max_tokens = 0; }) ==
        "max_tokens is 0, at least 1 is needed");
}
