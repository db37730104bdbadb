// How the paged KV cache lies in memory: [layer][block][K, V][kv_head][token][dim].
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace flotilla {

struct KvLayout {
  int64_t num_layers = 0;
  int64_t num_blocks = 0;
  int64_t block_size = 0;    // tokens in a block
  int64_t num_kv_heads = 0;  // of this rank
  int64_t head_dim = 0;
  DType dtype = DType::kF32;  // F32 or BF16

  // Elements of one head's K (or V) in one block.
  int64_t head_elements() const { return block_size * head_dim; }
  // Elements of one block of one layer: K and V of all heads.
  int64_t block_elements() const { return 2 * num_kv_heads * head_elements(); }
  int64_t layer_elements() const { return num_blocks * block_elements(); }
  size_t block_bytes_all_layers() const {
    return static_cast<size_t>(num_layers * block_elements()) * dtype_bytes(dtype);
  }
  size_t bytes() const {
    return static_cast<size_t>(num_layers * layer_elements()) * dtype_bytes(dtype);
  }

  // Offset in elements of [layer][block][which: 0 = K, 1 = V][head][0][0].
  int64_t offset(int64_t layer, int64_t block, int which, int64_t head) const {
    return layer * layer_elements() + block * block_elements() +
           (which * num_kv_heads + head) * head_elements();
  }
};

}  // namespace flotilla
