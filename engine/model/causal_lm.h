// A model as the runner sees it: token rows in, logits out.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/status.h"
#include "engine/model/config.h"
#include "engine/model/expert_store.h"
#include "engine/model/workspace.h"
#include "engine/parallel/expert_exchange.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// One step's rows, on the device. T rows of S sequences, as in paged_attention.
struct StepInputs {
  TensorView tokens;       // [T] I32
  TensorView positions;    // [T] I32
  TensorView slots;        // [T] I32: where K and V go
  TensorView q_offsets;    // [S + 1] I32
  TensorView context;      // [S] I32
  TensorView block_table;  // [S, B] I32
  int64_t max_context = 0;
};

struct ForwardContext {
  Stream& stream;
  Workspace& workspace;
  const StepInputs& in;
  void* kv_cache;
  const KvLayout& layout;
  ExpertExchange& exchange;
  DType activation;                 // F32 or BF16: what goes into GEMMs
  std::atomic<uint64_t>& progress;  // grows with every layer: proof of life
};

class CausalLm {
 public:
  virtual ~CausalLm() = default;

  // Writes K and V of all rows and returns their states behind the final norm: [T, C] of the
  // activation type, in the workspace. T == 0 takes part in the expert exchange and nothing else.
  // An error is the exchange's (kAborted: the epoch is over).
  virtual StatusOr<TensorView> forward(ForwardContext& ctx) = 0;
  // hidden [R, C] → logits [R, V] F32.
  virtual void logits(const TensorView& hidden, const TensorView& logits, Stream& stream) = 0;
  // nullptr for a dense model.
  virtual ExpertStore* experts() = 0;
};

// Upper bound of what forward() takes from the workspace for `rows` rows of `config` (paged
// attention's scratch not included).
size_t forward_workspace_bytes(const ModelConfig& config, int64_t rows, int64_t max_expert_pairs);

}  // namespace flotilla
