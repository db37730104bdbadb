// Whole ranks in one process: engines, mesh and step clock as they are in a fleet, with the
// fixtures' checkpoints and reference tokens.
#include <doctest/doctest.h>

#include <filesystem>
#include <map>

#include "common/crypto.h"
#include "common/mutex.h"
#include "engine/rank_engine.h"
#include "launcher/step_clock_server.h"
#include "tests/engine/model/fixture.h"

using namespace flotilla;

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

class Collector final : public TokenSink {
 public:
  void on_tokens(std::span<TokenBatch> batches) override {
    MutexLock lock(mutex_);
    for (TokenBatch& b : batches) {
      std::vector<TokenId>& tokens = tokens_[b.id];
      if (b.first_index != tokens.size()) gap_ = true;
      tokens.insert(tokens.end(), b.tokens.begin(), b.tokens.end());
      for (const PositionLogprobs& l : b.logprobs) logprobs_[b.id].push_back(l.chosen.logprob);
      if (b.finish != FinishReason::kRunning) finished_[b.id] = b.finish;
    }
    changed_.notify_all();  // under the lock: whoever is woken may destroy this
  }
  bool wait_tokens(uint64_t id, size_t n) {
    MutexLock lock(mutex_);
    return changed_.wait_until(
        lock, Clock::now() + seconds(60), [&] { return tokens_[id].size() >= n; });
  }
  bool wait_finished(size_t n) {
    MutexLock lock(mutex_);
    return changed_.wait_until(
        lock, Clock::now() + seconds(60), [&] { return finished_.size() >= n; });
  }
  std::vector<TokenId> tokens(uint64_t id) {
    MutexLock lock(mutex_);
    return tokens_[id];
  }
  std::vector<float> logprobs(uint64_t id) {
    MutexLock lock(mutex_);
    return logprobs_[id];
  }
  bool gap() {
    MutexLock lock(mutex_);
    return gap_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::map<uint64_t, std::vector<TokenId>> tokens_;
  std::map<uint64_t, std::vector<float>> logprobs_;
  std::map<uint64_t, FinishReason> finished_;
  bool gap_ = false;
};

struct NoEvents final : FleetEvents {
  void on_progress(Rank, pid_t, std::string, double) override {}
  void on_serving(Rank, pid_t, double) override {}
  void on_hung(Rank rank, pid_t, std::string) override { hung = rank.value; }
  void on_refused(Rank, pid_t, std::string why) override {
    MutexLock lock(mutex);
    refused = why;
  }
  std::atomic<int> hung{-1};
  Mutex mutex;
  std::string refused;
};

struct Fleet {
  explicit Fleet(int32_t n, OnRankLoss on_loss = OnRankLoss::kContinue)
      : dir(std::filesystem::temp_directory_path() / ("flotilla-fleet-" + to_hex(random_bytes(6)))),
        size(n) {
    std::filesystem::create_directory(dir);
    auto started = StepClockServer::start(
        dir / "clock.sock",
        {.num_ranks = n, .on_rank_loss = on_loss, .rank_timeout = seconds(20)},
        events);
    REQUIRE_MESSAGE(started.ok(), started.status().message());
    clock = std::move(*started);
    for (int32_t r = 0; r < n; ++r) ranks.push_back(start(r));
    for (auto& rank : ranks) REQUIRE(rank->wait_started(Clock::now() + seconds(60)));
  }
  ~Fleet() {
    ranks.clear();
    std::filesystem::remove_all(dir);
  }
  static RankEngineOptions options(const std::string& model = "ernie45-moe") {
    RankEngineOptions o;
    o.model.dir = std::string(FLOTILLA_TEST_MODELS) + "/" + model;
    o.cpu.num_threads = 1;
    o.max_model_len = 512;
    o.num_blocks = 64;
    o.block_size = 16;
    o.max_num_seqs = 8;
    o.max_num_batched_tokens = 32;
    return o;
  }
  std::unique_ptr<RankEngine> start(int32_t r) {
    RankEngineOptions o = options();
    o.group.rank = Rank(r);
    o.group.num_ranks = size;
    o.group.expert_parallel = true;
    o.group.clock_socket = dir / "clock.sock";
    o.group.mesh_directory = dir;
    o.group.cluster_secret = "secret";
    auto engine = RankEngine::create(std::move(o), nullptr);
    REQUIRE_MESSAGE(engine.ok(), engine.status().message());
    return std::move(*engine);
  }

  std::filesystem::path dir;
  int32_t size;
  NoEvents events;
  std::unique_ptr<StepClockServer> clock;
  std::vector<std::unique_ptr<RankEngine>> ranks;
};

GenerationRequest request(uint64_t id,
                          std::vector<TokenId> prompt,
                          uint32_t n,
                          float temperature = 0.0f) {
  GenerationRequest r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.sampling.temperature = temperature;
  r.sampling.max_tokens = n;
  r.sampling.ignore_eos = true;
  r.sampling.logprobs = 0;
  r.seed = 42 + id;
  return r;
}

// Tokens and log probabilities of the fixture's prompts, greedy and seeded, on one rank of a fleet
// while the others idle or work, too.
struct Text {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  bool operator==(const Text&) const = default;
};
std::vector<Text> generate(RankEngine& engine, const Fixture& fixture) {
  Collector collector;
  uint64_t id = 0;
  for (const ReferencePrompt& p : fixture.prompts) {
    for (const float temperature : {0.0f, 1.0f}) {
      const Status status = engine.submit(request(id++, p.ids, 32, temperature), &collector);
      REQUIRE_MESSAGE(status.ok(), status.message());
    }
  }
  REQUIRE(collector.wait_finished(id));
  CHECK_FALSE(collector.gap());
  std::vector<Text> texts;
  for (uint64_t i = 0; i < id; ++i) texts.push_back({collector.tokens(i), collector.logprobs(i)});
  return texts;
}

}  // namespace

TEST_CASE("Fleet.TokensAndLogprobsAreBitEqualForAnyNumberOfRanksAndOnAnyOfThem") {
  const Fixture fixture = load_fixture(Fleet::options().model.dir);
  auto alone = RankEngine::create(Fleet::options(), nullptr);
  REQUIRE(alone.ok());
  const std::vector<Text> expected = generate(**alone, fixture);
  for (size_t i = 0; i < fixture.prompts.size(); ++i)
    CHECK(expected[2 * i].tokens == fixture.prompts[i].greedy);
  for (const int32_t n : {2, 3, 8}) {
    Fleet fleet(n);
    std::vector<std::thread> threads;
    std::vector<std::vector<Text>> got(static_cast<size_t>(n));
    for (size_t r = 1; r < static_cast<size_t>(n); ++r)
      threads.emplace_back([&, r] { got[r] = generate(*fleet.ranks[r], fixture); });
    got[0] = generate(*fleet.ranks[0], fixture);
    for (std::thread& t : threads) t.join();
    for (const auto& texts : got) CHECK(texts == expected);
    CHECK(generate(*fleet.ranks[0], fixture) ==
          expected);  // from the prefix cache, with the others idle
  }
}

TEST_CASE("Fleet.ARunningStreamSurvivesTheLossOfARankWithUnchangedText") {
  const Fixture fixture = load_fixture(Fleet::options().model.dir);
  auto alone = RankEngine::create(Fleet::options(), nullptr);
  REQUIRE(alone.ok());
  Collector undisturbed;
  REQUIRE((*alone)->submit(request(0, fixture.prompts[1].ids, 400), &undisturbed).ok());
  REQUIRE(undisturbed.wait_finished(1));

  Fleet fleet(3);
  Collector collector;
  REQUIRE(fleet.ranks[0]->submit(request(0, fixture.prompts[1].ids, 400), &collector).ok());
  REQUIRE(collector.wait_tokens(0, 50));
  fleet.ranks[1].reset();  // its sockets close, as when its process dies
  REQUIRE(collector.wait_tokens(0, 150));
  CHECK(fleet.ranks[0]->health().degraded);
  fleet.ranks[1] = fleet.start(1);  // and joins again
  REQUIRE(fleet.ranks[1]->wait_started(Clock::now() + seconds(60)));
  REQUIRE(collector.wait_finished(1));
  CHECK_FALSE(fleet.ranks[0]->health().degraded);
  CHECK_FALSE(collector.gap());
  CHECK(collector.tokens(0) == undisturbed.tokens(0));
  CHECK(collector.logprobs(0) == undisturbed.logprobs(0));
}

TEST_CASE("Fleet.WaitsForALostRankIfToldTo") {
  const Fixture fixture = load_fixture(Fleet::options().model.dir);
  Fleet fleet(2, OnRankLoss::kWait);
  Collector collector;
  REQUIRE(fleet.ranks[0]->submit(request(0, fixture.prompts[1].ids, 300), &collector).ok());
  REQUIRE(collector.wait_tokens(0, 20));
  fleet.ranks[1].reset();
  while (fleet.ranks[0]->health().state != EngineState::kPaused) std::this_thread::yield();
  const size_t produced = collector.tokens(0).size();
  fleet.ranks[1] = fleet.start(1);
  REQUIRE(collector.wait_finished(1));
  CHECK(collector.tokens(0).size() == 300);
  CHECK(produced < 300);
}

TEST_CASE("Fleet.ADrainedRankFinishesItsStreamsAndTheOthersTakeItsExpertsOver") {
  const Fixture fixture = load_fixture(Fleet::options().model.dir);
  Fleet fleet(2);
  Collector leaving, staying;
  REQUIRE(fleet.ranks[0]->submit(request(0, fixture.prompts[1].ids, 300), &staying).ok());
  REQUIRE(fleet.ranks[1]->submit(request(0, fixture.prompts[1].ids, 100), &leaving).ok());
  REQUIRE(leaving.wait_tokens(0, 10));
  fleet.ranks[1]->begin_drain();
  CHECK(fleet.ranks[1]->submit(request(1, {5}, 1), &leaving).code() == StatusCode::kUnavailable);
  REQUIRE(fleet.ranks[1]->wait_drained(Clock::now() + seconds(60)));
  CHECK(leaving.tokens(0).size() == 100);
  fleet.ranks[1].reset();
  REQUIRE(staying.wait_finished(1));
  CHECK(staying.tokens(0).size() == 300);
}

TEST_CASE("Fleet.ADrainingFleetLetsNobodyGoBeforeAllAreDone") {
  const Fixture fixture = load_fixture(Fleet::options().model.dir);
  Fleet fleet(2);
  Collector collector;
  REQUIRE(fleet.ranks[0]->submit(request(0, fixture.prompts[1].ids, 200), &collector).ok());
  REQUIRE(collector.wait_tokens(0, 10));
  fleet.clock->on_fleet_draining();
  REQUIRE(fleet.ranks[1]->wait_drained(Clock::now() + seconds(60)));
  CHECK(collector.tokens(0).size() == 200);
  REQUIRE(fleet.ranks[0]->wait_drained(Clock::now() + seconds(60)));
}

TEST_CASE("Fleet.CancellationFreesASequenceAndAFullQueueRefuses") {
  RankEngineOptions o = Fleet::options();
  o.max_num_seqs = 1;
  o.max_waiting = 2;
  auto engine = RankEngine::create(std::move(o), nullptr);
  REQUIRE(engine.ok());
  REQUIRE((*engine)->wait_started(Clock::now() + seconds(60)));
  Collector collector;
  REQUIRE((*engine)->submit(request(0, {5}, 500), &collector).ok());
  REQUIRE(collector.wait_tokens(0, 1));
  REQUIRE((*engine)->submit(request(1, {5}, 500), &collector).ok());
  REQUIRE((*engine)->submit(request(2, {5}, 500), &collector).ok());
  const Status full = (*engine)->submit(request(3, {5}, 500), &collector);
  CHECK(full.code() == StatusCode::kResourceExhausted);
  for (uint64_t id = 0; id < 3; ++id) (*engine)->cancel(&collector, id);
  REQUIRE(collector.wait_finished(3));
  CHECK((*engine)->load().running == 0);
}

TEST_CASE("Fleet.FlagsThatDoNotFitTheModelAreNamed") {
  RankEngineOptions o = Fleet::options();
  o.max_model_len = 2048;
  CHECK(RankEngine::create(o, nullptr)
            .status()
            .message()
            .starts_with("--max-model-len 2048 needs 128 KV blocks of 16 tokens, there are 64: "
                         "raise --num-gpu-blocks-override"));
  o = Fleet::options();
  o.max_num_batched_tokens = 4;
  CHECK(RankEngine::create(o, nullptr)
            .status()
            .message()
            .starts_with("--max-num-batched-tokens 4 is less than --max-num-seqs 8"));
  o = Fleet::options();
  o.num_blocks.reset();
  o.kv_cache_bytes = 10;
  CHECK(RankEngine::create(o, nullptr)
            .status()
            .message()
            .starts_with("--kv-cache-memory of 0.0 MiB gives 0 KV blocks"));
  o.model.dir = "/nonexistent";
  CHECK(RankEngine::create(o, nullptr).status().message() ==
        "cannot open /nonexistent/config.json: No such file or directory");
}
