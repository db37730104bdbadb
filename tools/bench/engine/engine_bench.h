// How fast the engine is, without HTTP: prefill and decode of a batch of sequences, on one rank or
// on several that share the experts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/status.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/dtype.h"

namespace flotilla::bench {

struct EngineBenchOptions {
  std::string model;
  bool dummy_weights = false;
  int32_t batch = 1;     // sequences at once, spread evenly over the ranks
  int32_t prompt = 512;  // tokens of each, all different
  int32_t gen = 128;     // tokens that each yields
  int32_t ranks =
      1;  // threads of one process, with the mesh and the step clock of a real fleet between them
  int32_t num_threads = 1;  // per rank
  std::vector<int> cores;   // pinned, rank by rank; empty: not
  CpuIsa isa = best_cpu_isa();
  DType activation = DType::kBf16;
  int32_t max_num_batched_tokens = 2048;
  int32_t block_size = 64;
  int runs = 5;  // behind one that is not counted
};

struct EngineBenchResult {
  std::vector<double> prefill_tok_s;  // batch · prompt tokens over the time to the last first token
  std::vector<double>
      decode_tok_s;  // batch · (gen − 1) tokens over the time from there; empty for gen = 1
};

// `progress` gets a line per run.
StatusOr<EngineBenchResult> bench_engine(const EngineBenchOptions& options,
                                         const std::function<void(const std::string&)>& progress);

}  // namespace flotilla::bench
