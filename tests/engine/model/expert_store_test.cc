#include "engine/model/expert_store.h"

#include <atomic>

#include "tests/engine/model/fixture.h"

using namespace flotilla;

namespace {

std::vector<ExpertId> ids(std::initializer_list<int32_t> list) {
  std::vector<ExpertId> out;
  for (const int32_t e : list) out.emplace_back(e);
  return out;
}

struct Rig {
  explicit Rig(ExpertStore::Load load)
      : device(make_cpu_device({.num_threads = 1, .cores = {}, .isa = CpuIsa::kReference})),
        stream(device->create_stream()),
        store({.num_experts = 6,
               .num_layers = 3,
               .hidden = 4,
               .intermediate = 2,
               .stored = DType::kF32},
              *device,
              *stream,
              std::move(load)) {}
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  ExpertStore store;
};

}  // namespace

TEST_CASE("ExpertStore.LoadsOnlyWhatIsNewAndDropsWhatIsNotNamed") {
  Mutex mutex;
  std::vector<std::pair<int64_t, int32_t>> loads;
  Rig rig([&](int64_t layer, ExpertId e, const ExpertWeights& into) {
    CHECK(into.gate_up.n == 4);
    CHECK(into.down.n == 4);
    MutexLock lock(mutex);
    loads.emplace_back(layer, e.value);
    return ok_status();
  });
  REQUIRE(rig.store.place(ids({4, 1}), 2).ok());
  CHECK(loads.size() == 6);
  CHECK(rig.store.gate_up(2).size() == 2);
  const void* of_one = rig.store.gate_up(0)[1].data;
  loads.clear();
  REQUIRE(rig.store.place(ids({1, 5}), 1).ok());
  CHECK(loads == std::vector<std::pair<int64_t, int32_t>>{{0, 5}, {1, 5}, {2, 5}});
  CHECK(rig.store.gate_up(0)[0].data == of_one);  // it moved to slot 0, its memory stayed
  REQUIRE(rig.store.place({}, 1).ok());
  CHECK(rig.store.gate_up(0).empty());
}

TEST_CASE("ExpertStore.HoldsWhatItHeldWhenALoadFails") {
  bool broken = false;
  Rig rig([&](int64_t, ExpertId, const ExpertWeights&) {
    return broken ? invalid_argument("tensor 'x' is missing") : ok_status();
  });
  REQUIRE(rig.store.place(ids({0}), 1).ok());
  broken = true;
  CHECK(rig.store.place(ids({1, 2}), 2).message() == "tensor 'x' is missing");
  REQUIRE(rig.store.placed().size() == 1);
  CHECK(rig.store.placed()[0] == ExpertId(0));
  CHECK(rig.store.gate_up(0)[0].data != nullptr);
}

TEST_CASE("ExpertStore.ARankReadsOnlyTheBytesOfItsOwnExperts") {
  const std::string dir = std::string(FLOTILLA_TEST_MODELS) + "/ernie45-moe";
  auto device = make_cpu_device({.num_threads = 1, .cores = {}, .isa = CpuIsa::kReference});
  auto files = open_model({.dir = dir});
  REQUIRE(files.ok());
  auto model =
      Model::load(std::move(*files),
                  *device,
                  {.activation = DType::kBf16, .max_positions = 16, .threads = 1, .progress = {}});
  REQUIRE(model.ok());
  const uint64_t without = (*model)->bytes_read();
  const ModelConfig& c = (*model)->config();
  const auto expert =
      static_cast<uint64_t>(c.num_moe_layers() * 3 * c.hidden_size * c.moe.intermediate_size * 2);
  REQUIRE((*model)->lm().experts()->place(ids({2, 7}), 1).ok());
  CHECK((*model)->bytes_read() - without == 2 * expert);
}
