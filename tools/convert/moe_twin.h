// A Mixture-of-Experts checkpoint that computes what a dense Llama model computes, so that expert
// parallelism serves real text and a fault in the routing spoils it.
//
// Experts come in pairs 2j and 2j + 1 with equal router rows: both are chosen together, with weight
// 0.5 each. They hold two halves of the dense FFN, their down projections doubled; every pair cuts
// the FFN in another way, so that experts of different pairs do not fit together.
//
//   pair 0    [ shared | first half | second half ]     the dense FFN's rows; shared: a third of
//   pair 1    [ shared | f s s f s f f s s f f s s f]   them, in ERNIE's shared expert
//
// strict: an expert of pair j also has a guard neuron for each other pair k,
//   silu(64·(g_k − g_j)·n) · (g_k − g_j)·n  into a random column of the down projection,
// which is about 0 as long as pair j has the largest logit and large otherwise. Router rows are
// small integers times a power of two, which makes the differences exact in BF16.
// poison (ERNIE): one pair is noise whose router row often has the largest logit; only
// e_score_correction_bias keeps it from being chosen.
// Qwen3 normalises each head of q and k, which no Llama does: the residual stream is scaled by s =
// 2^24 and eps by s², beside which those heads' squares vanish, so that the norms become linear.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "tools/convert/dense_model.h"
#include "tools/convert/router.h"
#include "tools/convert/safetensors_writer.h"

namespace flotilla::convert {

enum class TwinFamily { kErnie45, kQwen3 };

struct TwinOptions {
  TwinFamily family = TwinFamily::kErnie45;
  bool strict = true;
  int experts = 8;  // even; ERNIE ≥ 6, of which two are poison; Qwen3 ≥ 4
  int shards = 1;
  int threads = 1;
};

// "ernie-strict", "ernie-pairs", "qwen3-strict", "qwen3-pairs".
StatusOr<TwinOptions> parse_twin(std::string_view name);

// The sizes of a twin, from those of the dense model.
struct TwinShape {
  TwinFamily family = TwinFamily::kErnie45;
  bool strict = true;
  int pairs = 4;
  int poison_pair = kNoPair;
  int64_t first_moe_layer = 0;
  int64_t shared_rows = 0;   // of the dense FFN, in the shared expert
  int64_t intermediate = 0;  // M
};
// kInvalidArgument if the model or the number of experts is too small.
StatusOr<TwinShape> twin_shape(const ModelConfig& dense, const TwinOptions& options);

// What the twin's layer i ≥ first_moe_layer is fitted to.
struct LayerFit {
  Router router;
  double out_rms = 0.0;  // of the FFN's output, typical of a token
  double in_rms = 0.0;   // of its input
};

// `dense` and `fits` [layers] outlive the result.
std::vector<OutputTensor> twin_tensors(const DenseModel& dense,
                                       const TwinShape& shape,
                                       const std::vector<LayerFit>& fits);
std::string twin_config_json(const DenseModel& dense, const TwinShape& shape);

}  // namespace flotilla::convert
