#pragma once

#include <cstddef>

#include "kernels/kv_layout.h"
#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// Causal attention over the paged cache, for any mix of prefill chunks and decode tokens.
//   q, out [T, H, D] F32|BF16; H a multiple of layout.num_kv_heads, head h reads KV head h / (H /
//   K) q_offsets [S + 1] I32: rows of sequence s are q_offsets[s] … q_offsets[s+1] - 1 context [S]
//   I32: tokens in the cache for s after this step, its own rows included (their K and V are
//   already there);
//                    row j of s has position context[s] - rows(s) + j and sees the tokens 0 …
//                    position
//   block_table [S, B] I32: logical block → block of the pool; entries behind the context are not
//   read
// scores = q·k · scale; softmax and all sums in F32. The result of a row depends on its position
// and on the cache's content, never on how the prompt was cut, on the other rows, on block_size or
// on the number of threads: keys are taken in tiles at fixed positions. workspace:
// paged_attention_workspace_bytes(), aligned to 64. Source: arXiv:2309.06180 (layout),
// arXiv:2205.14135 (tiles).
struct PagedAttentionParams {
  TensorView q, out;
  TensorView q_offsets, context, block_table;
  float scale = 1.0f;
  const void* cache = nullptr;
  KvLayout layout;
  int64_t layer = 0;
  void* workspace = nullptr;
};
void paged_attention(const PagedAttentionParams& p, Stream& stream);

// For at most `max_rows` query rows of `num_heads` heads over contexts of at most `max_context`
// tokens.
size_t paged_attention_workspace_bytes(int64_t max_rows,
                                       int64_t num_heads,
                                       int64_t max_context,
                                       const KvLayout& layout,
                                       const Stream& stream);

}  // namespace flotilla
