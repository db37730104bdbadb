// The router of a Mixture-of-Experts layer and the sum of its experts' rows.
#pragma once

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// p = softmax(logits[t,:]) over all E; S = the k experts of largest p + bias (ties: the lower id);
// weight of e in S is p_e, or with `renormalize` p_e / max(Σ_S p, norm_min). The k chosen are
// written in ascending order of expert id.
//   logits [T, E] F32; bias [E] F32, optional, used for choosing only; ids [T, k] I32; weights [T,
//   k] F32. k <= E.
// NaN logits: the expert counts as -inf. All in F32. Source: ERNIE-4.5 (e_score_correction_bias),
// arXiv:2408.15664 (bias).
struct MoeTopkParams {
  TensorView logits;
  TensorView bias = {};
  TensorView ids, weights;
  bool renormalize = true;
  float norm_min = 0.0f;
};
void moe_topk(const MoeTopkParams& p, Stream& stream);

// y[t,:] = base[t,:] + Σ_j weights[t,j] · rows[t·k + j,:], added in ascending j: with ids from
// moe_topk, in expert-id order.
//   rows [T·k, C] F32; weights [T, k] F32; base [T, C] F32, optional (the shared experts' output);
//   y [T, C] F32, may alias base.
struct MoeCombineParams {
  TensorView rows, weights;
  TensorView base = {};
  TensorView y;
};
void moe_combine(const MoeCombineParams& p, Stream& stream);

}  // namespace flotilla
