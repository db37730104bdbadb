// The parts that families are composed of. Each holds views into memory that the model owns.
#pragma once

#include <memory>
#include <string>

#include "engine/model/causal_lm.h"
#include "engine/model/loader.h"
#include "kernels/linear.h"

namespace flotilla {

struct RmsNorm {
  TensorView weight;  // [C] F32
  float eps = 1e-6f;

  // residual [T, C] += x (if there is a residual); y [T, C] = the sum, normalised.
  void forward(const TensorView& x,
               const TensorView& residual,
               const TensorView& y,
               ForwardContext& ctx) const;
};
StatusOr<RmsNorm> load_rms_norm(ModelLoader& loader, const std::string& name, int64_t size);

struct Linear {
  PackedWeight weight;
  TensorView bias = {};

  void forward(const TensorView& x, const TensorView& y, Stream& stream) const;  // [T, K] → [T, N]
};
StatusOr<Linear> load_linear(ModelLoader& loader,
                             const std::vector<LinearPart>& parts,
                             int64_t k,
                             bool bias);

// Rows of a lookup table.
struct Embedding {
  TensorView table;  // [V, C]

  void forward(const TensorView& tokens,
               const TensorView& y,
               ForwardContext& ctx) const;  // [T] → [T, C] F32
};

// cos and sin by position, [P, D/2] F32.
struct RotaryTables {
  TensorView cos, sin;
};
StatusOr<RotaryTables> make_rotary_tables(ModelLoader& loader);

// Grouped-query attention over the paged cache.
struct Attention {
  Linear qkv, o;
  TensorView q_norm = {}, k_norm = {};  // [D] F32, or empty
  RotaryTables rotary;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  RopeStyle style = RopeStyle::kHalf;
  float eps = 1e-6f;
  // The projection's input and the queries stay F32 beside bf16 weights and cache. In a Mixture-of-Experts model their rounding is
  // the largest part of the noise that flips experts in near ties (measured on the fixtures: a third of it).
  bool f32_input = false;

  // x [T, C] F32 if f32_input, else of the activation type; y [T, C] F32, may alias x.
  void forward(const TensorView& x, const TensorView& y, int64_t layer, ForwardContext& ctx) const;
};
// `prefix` is "…self_attn".
StatusOr<Attention> load_attention(ModelLoader& loader,
                                   const std::string& prefix,
                                   const RotaryTables& rotary);

// y = (silu(x·Wg) ∘ (x·Wu)) · Wd
struct DenseMlp {
  Linear gate_up, down;

  void forward(const TensorView& x,
               const TensorView& y,
               ForwardContext& ctx) const;  // [T, C] → [T, C] F32
};
// `prefix` is "…mlp" or "…mlp.shared_experts".
StatusOr<DenseMlp> load_dense_mlp(ModelLoader& loader,
                                  const std::string& prefix,
                                  int64_t intermediate);

// Router, routed experts over the ranks, shared experts beside them.
struct MoeFfn {
  Linear gate;                       // [E, C] F32
  TensorView correction_bias = {};   // [E] F32, or empty
  std::unique_ptr<DenseMlp> shared;  // or null
  int64_t moe_layer = 0;             // index among the MoE layers
  MoeConfig config;
  const ExpertStore* experts = nullptr;

  // x [T, C] F32; rounded [T, C] of the activation type: scratch that holds x as the experts see
  // it; y [T, C] F32, may alias x.
  Status forward(const TensorView& x,
                 const TensorView& rounded,
                 const TensorView& y,
                 ForwardContext& ctx) const;
};
// `prefix` is "…mlp"; the bias is prefix + ".moe_statics.e_score_correction_bias".
StatusOr<MoeFfn> load_moe(ModelLoader& loader,
                          const std::string& prefix,
                          int64_t moe_layer,
                          const ExpertStore* experts);

// The experts of all MoE layers, none loaded yet. Tensors of every expert are claimed, and read
// only when they are placed. `layer_prefixes`: "…mlp" of each MoE layer. `source` outlives the
// store.
StatusOr<std::unique_ptr<ExpertStore>> make_expert_store(
    ModelLoader& loader, const std::vector<std::string>& layer_prefixes);

}  // namespace flotilla
