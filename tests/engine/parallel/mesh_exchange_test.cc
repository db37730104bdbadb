// Ranks as threads, with real sockets between them.
#include "engine/parallel/mesh_exchange.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <numeric>
#include <random>
#include <thread>

#include "common/crypto.h"
#include "engine/parallel/local_exchange.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/linear.h"

using namespace flotilla;

namespace {

constexpr int64_t kHidden = 24;
constexpr int32_t kExperts = 10;
constexpr int64_t kTopK = 3;

struct TempDir {
  TempDir()
      : path(std::filesystem::temp_directory_path() /
             ("flotilla-mesh-" + to_hex(random_bytes(6)))) {
    std::filesystem::create_directory(path);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

// Expert e maps x to x · W_e with a fixed random W_e.
struct Experts {
  std::unique_ptr<Device> device =
      make_cpu_device({.num_threads = 1, .cores = {}, .isa = CpuIsa::kReference});
  std::unique_ptr<Stream> stream = device->create_stream();
  std::vector<DeviceBuffer> memory;
  std::vector<PackedWeight> weights;

  Experts() {
    for (int32_t e = 0; e < kExperts; ++e) {
      std::mt19937 random(static_cast<unsigned>(e));
      std::normal_distribution<float> normal;
      std::vector<float> w(kHidden * kHidden);
      for (float& v : w) v = normal(random);
      memory.push_back(
          device->allocate(packed_linear_bytes(kHidden, kHidden, DType::kF32, *stream)).value());
      weights.push_back({memory.back().data(), kHidden, kHidden, DType::kF32});
      pack_linear(
          {.src = TensorView(w.data(), DType::kF32, {kHidden, kHidden}), .dst = weights.back()},
          *stream);
    }
  }
};

struct Tokens {
  std::vector<float> x, weights, y;
  std::vector<int32_t> ids;
  int64_t rows;

  explicit Tokens(int64_t n, unsigned seed) : rows(n) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t c = 0; c < kHidden; ++c) x.push_back(normal(random));
      std::vector<int32_t> all(kExperts);
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random);
      std::sort(all.begin(), all.begin() + kTopK);
      ids.insert(ids.end(), all.begin(), all.begin() + kTopK);
      for (int64_t j = 0; j < kTopK; ++j) weights.push_back(normal(random));
    }
    y.resize(x.size());
  }
  TensorView x_view() { return {x.data(), DType::kF32, {rows, kHidden}}; }
  TensorView ids_view() { return {ids.data(), DType::kI32, {rows, kTopK}}; }
  TensorView weights_view() { return {weights.data(), DType::kF32, {rows, kTopK}}; }
  TensorView y_view() { return {y.data(), DType::kF32, {rows, kHidden}}; }
};

Status run_layer(ExpertExchange& exchange,
                 int64_t layer,
                 Tokens& tokens,
                 const Experts& experts,
                 std::span<const ExpertId> mine,
                 Stream& stream) {
  std::vector<PackedWeight> weights;
  for (const ExpertId e : mine) weights.push_back(experts.weights[static_cast<size_t>(e.value)]);
  FLOTILLA_RETURN_IF_ERROR(exchange.dispatch(layer, tokens.x_view(), tokens.ids_view(), stream));
  while (true) {
    ExpertWork work;
    const StatusOr<bool> more = exchange.next_work(&work, stream);
    if (!more.ok()) return more.status();
    if (!*more) break;
    grouped_linear({.x = work.x,
                    .x_rows = work.x_rows,
                    .offsets = work.offsets,
                    .w = weights.data(),
                    .num_groups = static_cast<int64_t>(weights.size()),
                    .out_rows = work.out_rows,
                    .y = work.y},
                   stream);
  }
  return exchange.combine(tokens.weights_view(), {}, tokens.y_view(), stream);
}

std::vector<float> local_result(Tokens& tokens, const Experts& experts) {
  LocalExchange exchange(kExperts, kHidden);
  std::vector<ExpertId> all;
  for (int32_t e = 0; e < kExperts; ++e) all.emplace_back(e);
  auto stream = experts.device->create_stream();
  REQUIRE(run_layer(exchange, 0, tokens, experts, all, *stream).ok());
  return tokens.y;
}

struct Fleet {
  TempDir dir;
  std::vector<std::unique_ptr<MeshExchange>> ranks;

  explicit Fleet(int32_t n,
                 bool tcp = false,
                 std::chrono::milliseconds deadline = std::chrono::seconds(20)) {
    for (int32_t r = 0; r < n; ++r) {
      auto exchange = MeshExchange::create({.rank = Rank(r),
                                            .secret = "secret",
                                            .directory = tcp ? "" : dir.path.string(),
                                            .deadline = deadline},
                                           {.hidden = kHidden, .activation = DType::kF32});
      REQUIRE_MESSAGE(exchange.ok(), exchange.status().message());
      ranks.push_back(std::move(*exchange));
    }
  }
  ExchangeGroup group(uint64_t epoch, const std::vector<Rank>& alive) const {
    ExchangeGroup g{
        .epoch = Epoch(epoch),
        .members = {},
        .placement = place_experts(kExperts, static_cast<int32_t>(ranks.size()), alive)};
    for (const Rank r : alive)
      g.members.push_back({r, ranks[static_cast<size_t>(r.value)]->address()});
    return g;
  }
};

// Runs `work` for each of `who` in a thread of its own.
void on_all(const std::vector<Rank>& who,
            const std::function<void(size_t index, Rank rank)>& work) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < who.size(); ++i) threads.emplace_back(work, i, who[i]);
  for (std::thread& t : threads) t.join();
}

}  // namespace

TEST_CASE("MeshExchange.GivesTheSameBitsForAnyNumberOfRanksAndAnyPlacement") {
  const Experts experts;
  for (const bool tcp : {false, true}) {
    for (const int32_t n : {1, 2, 3, 4, 8, 12}) {
      Fleet fleet(n, tcp);
      std::vector<std::vector<Rank>> groups = {all_ranks(n)};
      if (n >= 3) {
        auto fewer = all_ranks(n);
        fewer.erase(fewer.begin() + 1);
        groups.push_back(fewer);         // rank 1 is lost …
        groups.push_back(all_ranks(n));  // … and back
      }
      for (size_t epoch = 0; epoch < groups.size(); ++epoch) {
        const std::vector<Rank>& alive = groups[epoch];
        const ExchangeGroup group = fleet.group(epoch + 1, alive);
        std::vector<int32_t> rows;
        for (size_t i = 0; i < alive.size(); ++i)
          rows.push_back(i % 3 == 2 ? 0 : static_cast<int32_t>(1 + i * 7));
        std::vector<std::string> failures(alive.size());
        on_all(alive, [&](size_t i, Rank rank) {
          MeshExchange& exchange = *fleet.ranks[static_cast<size_t>(rank.value)];
          auto stream = experts.device->create_stream();
          Status status = exchange.join(group);
          for (uint64_t step = 0; step < 3 && status.ok(); ++step) {
            status = exchange.begin_step({group.epoch, StepIndex(step), rows});
            for (int64_t layer = 0; layer < 4 && status.ok(); ++layer) {
              Tokens tokens(
                  rows[i],
                  static_cast<unsigned>(i * 100 + step * 10) + static_cast<unsigned>(layer));
              status = run_layer(
                  exchange, layer, tokens, experts, experts_of(group.placement, rank), *stream);
              const std::vector<float> got = tokens.y;
              if (status.ok() &&
                  std::memcmp(got.data(), local_result(tokens, experts).data(), got.size() * 4) !=
                      0) {
                status = internal_error("other bits");
              }
            }
          }
          failures[i] = status.ok() ? "" : status.to_string();
        });
        for (const std::string& failure : failures) CHECK(failure == "");
      }
    }
  }
}

TEST_CASE("MeshExchange.ManyRowsDoNotBlockTwoRanksAgainstEachOther") {
  const Experts experts;
  Fleet fleet(2);
  const ExchangeGroup group = fleet.group(1, all_ranks(2));
  on_all(all_ranks(2), [&](size_t i, Rank rank) {
    MeshExchange& exchange = *fleet.ranks[i];
    auto stream = experts.device->create_stream();
    REQUIRE(exchange.join(group).ok());
    REQUIRE(exchange.begin_step({group.epoch, StepIndex(0), {20000, 20000}}).ok());
    Tokens tokens(20000, static_cast<unsigned>(i));
    CHECK(run_layer(exchange, 0, tokens, experts, experts_of(group.placement, rank), *stream).ok());
  });
}

TEST_CASE("MeshExchange.TheEndOfAnEpochEndsEveryWaitAtOnce") {
  const Experts experts;
  Fleet fleet(2);
  const ExchangeGroup group = fleet.group(1, all_ranks(2));
  std::promise<void> joined;
  std::thread silent([&] {
    REQUIRE(fleet.ranks[1]->join(group).ok());
    joined.set_value();
  });
  std::thread waiting([&] {
    auto stream = experts.device->create_stream();
    REQUIRE(fleet.ranks[0]->join(group).ok());
    REQUIRE(fleet.ranks[0]->begin_step({group.epoch, StepIndex(0), {1, 1}}).ok());
    Tokens tokens(1, 1);
    const Status status = run_layer(
        *fleet.ranks[0], 0, tokens, experts, experts_of(group.placement, Rank(0)), *stream);
    CHECK(status.code() == StatusCode::kAborted);
  });
  joined.get_future().wait();
  while (!fleet.ranks[0]->waiting()) std::this_thread::yield();
  fleet.ranks[0]->cancel_before(Epoch(2));
  waiting.join();
  silent.join();
  CHECK(fleet.ranks[0]->join(group).code() == StatusCode::kAborted);
}

TEST_CASE("MeshExchange.ADeadPeerIsNamed") {
  const Experts experts;
  Fleet fleet(2);
  const ExchangeGroup group = fleet.group(1, all_ranks(2));
  std::thread dying([&] {
    REQUIRE(fleet.ranks[1]->join(group).ok());
    fleet.ranks[1].reset();
  });
  auto stream = experts.device->create_stream();
  REQUIRE(fleet.ranks[0]->join(group).ok());
  dying.join();
  REQUIRE(fleet.ranks[0]->begin_step({group.epoch, StepIndex(0), {1, 1}}).ok());
  Tokens tokens(1, 1);
  const Status status =
      run_layer(*fleet.ranks[0], 0, tokens, experts, experts_of(group.placement, Rank(0)), *stream);
  CHECK(status.code() == StatusCode::kUnavailable);
  CHECK(status.message().starts_with("rank 1: "));
}

TEST_CASE("MeshExchange.ASilentPeerRunsIntoTheDeadline") {
  const Experts experts;
  Fleet fleet(2, false, std::chrono::milliseconds(300));
  const ExchangeGroup group = fleet.group(1, all_ranks(2));
  std::thread silent([&] { REQUIRE(fleet.ranks[1]->join(group).ok()); });
  REQUIRE(fleet.ranks[0]->join(group).ok());
  silent.join();
  auto stream = experts.device->create_stream();
  REQUIRE(fleet.ranks[0]->begin_step({group.epoch, StepIndex(0), {1, 1}}).ok());
  Tokens tokens(1, 1);
  const Status status =
      run_layer(*fleet.ranks[0], 0, tokens, experts, experts_of(group.placement, Rank(0)), *stream);
  CHECK(status.code() == StatusCode::kDeadlineExceeded);
  CHECK(status.message() == "no expert rows from rank 1 for 300 ms");
}

TEST_CASE("MeshExchange.AMemberThatNeverComesIsNamedByTheDeadline") {
  Fleet fleet(2, false, std::chrono::milliseconds(200));
  CHECK(fleet.ranks[0]->join(fleet.group(1, all_ranks(2))).code() == StatusCode::kDeadlineExceeded);
}

TEST_CASE("MeshExchange.RefusesARankWithAnotherSecret") {
  TempDir dir;
  std::vector<std::unique_ptr<MeshExchange>> ranks;
  for (int32_t r = 0; r < 2; ++r) {
    ranks.push_back(MeshExchange::create({.rank = Rank(r),
                                          .secret = r == 0 ? "right" : "wrong",
                                          .directory = dir.path.string(),
                                          .deadline = std::chrono::milliseconds(500)},
                                         {.hidden = kHidden, .activation = DType::kF32})
                        .value());
  }
  const ExchangeGroup group{
      .epoch = Epoch(1),
      .members = {{Rank(0), ranks[0]->address()}, {Rank(1), ranks[1]->address()}},
      .placement = place_experts(kExperts, 2, all_ranks(2))};
  std::thread stranger([&] { CHECK_FALSE(ranks[1]->join(group).ok()); });
  CHECK(ranks[0]->join(group).code() == StatusCode::kDeadlineExceeded);
  stranger.join();
}
