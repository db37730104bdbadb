// Writes model.safetensors, or shards of it with an index. Tensors are made row by row while they
// are written: memory stays small. Source: huggingface/safetensors, README "Format".
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/status.h"
#include "kernels/dtype.h"

namespace flotilla::convert {

struct OutputTensor {
  std::string name;
  DType dtype = DType::kBf16;  // or kF32
  std::vector<int64_t> shape;  // [n] is one row; [r, c] has r rows of c
  // Writes `count` rows from `first` on. Threads: any, disjoint rows at the same time.
  std::function<void(int64_t first, int64_t count, float* out)> fill;

  int64_t rows() const { return shape.size() == 1 ? 1 : shape[0]; }
  int64_t cols() const { return shape.back(); }
  uint64_t bytes() const { return static_cast<uint64_t>(rows() * cols()) * dtype_bytes(dtype); }
};

// Values are rounded to nearest even where dtype is kBf16. Names are unique. `shards` in [1,
// number of tensors], else kInvalidArgument; every shard has at least one tensor. Within a file
// F32 comes before BF16, then by name.
Status write_safetensors(const std::string& dir,
                         std::vector<OutputTensor> tensors,
                         int shards,
                         int threads);

}  // namespace flotilla::convert
