#pragma once

#include "kernels/kv_layout.h"
#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

enum class RopeStyle {
  kInterleaved,  // pairs (2j, 2j+1): ERNIE-4.5
  kHalf,         // pairs (j, j + D/2): Qwen3, Llama
};

// Takes the fused projection apart: optional RMS norm per head, rotation, K and V into the paged
// cache.
//   qkv [T, (H + 2K)·D] F32: q heads, then k heads, then v heads
//   q_norm, k_norm [D] F32, optional: weights of an RMS norm over each head, before the rotation
//   (Qwen3) cos, sin [P, D/2] F32: by position; positions [T] I32, each in [0, P) slots [T] I32:
//   block · block_size + offset where the token's K and V go; -1: not written q [T, H, D] F32|BF16:
//   rotated queries, rounded once
// cache: base of the whole pool; K and V are written to `layer`, rounded once to the cache's type.
// Two tokens never share a slot. Rotation of a pair (a, b): (a·cos − b·sin, b·cos + a·sin). Source:
// arXiv:2104.09864.
struct RopeCacheParams {
  TensorView qkv;
  TensorView q_norm = {}, k_norm = {};
  float eps = 1e-6f;
  RopeStyle style = RopeStyle::kHalf;
  TensorView cos, sin;
  TensorView positions, slots;
  TensorView q;
  void* cache = nullptr;
  KvLayout layout;
  int64_t layer = 0;
};
void rope_cache(const RopeCacheParams& p, Stream& stream);

}  // namespace flotilla
