#pragma once

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// y[t,:] = table[ids[t],:]
// table [V, C] F32|BF16|F16; ids [T] I32, each in [0, V); y [T, C] F32. T == 0 is fine.
struct EmbeddingParams {
  TensorView table, ids, y;
};
void embedding(const EmbeddingParams& p, Stream& stream);

// y[i,:] = x[rows[i],:]
// x [T, C], y [R, C] of one type F32|BF16; rows [R] I32, each in [0, T). R == 0 is fine.
struct GatherRowsParams {
  TensorView x, rows, y;
};
void gather_rows(const GatherRowsParams& p, Stream& stream);

}  // namespace flotilla
