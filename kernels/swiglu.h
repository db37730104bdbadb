#pragma once

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// y[r,i] = silu(gate_up[r,i]) · gate_up[r,I+i],  silu(z) = z / (1 + exp(-z))
// gate_up [R, 2I] F32; y [R, I] F32|BF16, rounded once. R == 0 is fine. Source: arXiv:2002.05202.
struct SwiGluParams {
  TensorView gate_up, y;
};
void swiglu(const SwiGluParams& p, Stream& stream);

}  // namespace flotilla
