// Everything a rank is made of, and how it is brought up: sizes settled from flags and model, then
// the weights.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "engine/kv_cache/kv_cache.h"
#include "engine/model/model.h"
#include "engine/parallel/local_exchange.h"
#include "engine/parallel/mesh_exchange.h"
#include "engine/rank_engine.h"
#include "engine/runner/model_runner.h"

namespace flotilla {

// Settled at start, before any weight is read.
struct RankSetup {
  ModelFiles files;
  KvLayout layout;
  EngineLimits limits;
  bool in_group = false;  // steps go by the clock, experts may be elsewhere
};
// kInvalidArgument names the flags that do not go together, with numbers.
StatusOr<RankSetup> set_up_rank(const RankEngineOptions& options);

struct RankParts {
  std::unique_ptr<Device> device;
  std::unique_ptr<Model> model;
  KvCache cache;
  std::unique_ptr<LocalExchange> local;  // or
  MeshExchange* mesh = nullptr;
  std::unique_ptr<ModelRunner> runner;  // ends before everything it uses

  ExpertExchange& exchange() {
    return mesh != nullptr ? static_cast<ExpertExchange&>(*mesh)
                           : static_cast<ExpertExchange&>(*local);
  }
};
// Loads the weights: all experts, or in a group those that this rank holds while everybody is
// there. `progress` gets the fraction of the bytes, from any thread. `mesh` may be null outside of
// a group.
StatusOr<RankParts> load_rank(const RankEngineOptions& options,
                              const RankSetup& setup,
                              ModelFiles files,
                              MeshExchange* mesh,
                              const std::function<void(double)>& progress);

// Bytes that this machine (or control group) could still give.
uint64_t available_memory();

}  // namespace flotilla
