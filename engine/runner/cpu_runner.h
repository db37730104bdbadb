// The device thread of a CPU rank.
#pragma once

#include <memory>

#include "engine/kv_cache/kv_cache.h"
#include "engine/model/model.h"
#include "engine/parallel/expert_exchange.h"
#include "engine/runner/model_runner.h"

namespace flotilla {

struct RunnerOptions {
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 2048;
  int64_t max_model_len = 2048;
  DType activation = DType::kF32;
};

// Everything given here outlives the runner. `exchange` may be called from the device thread from
// the first submit() on.
std::unique_ptr<ModelRunner> make_cpu_runner(Model& model,
                                             KvCache& cache,
                                             Device& device,
                                             ExpertExchange& exchange,
                                             const RunnerOptions& options);

}  // namespace flotilla
