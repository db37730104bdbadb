#pragma once

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// residual, if set, becomes residual + x first, and the sum is normalised:
//   y[t,:] = v[t,:] · rsqrt(mean(v[t,:]²) + eps) · w,   v = residual + x, or x alone.
// x, residual [T, C] F32; w [C] F32; y [T, C] F32|BF16, rounded once at the end. y may alias x when
// both are F32. T == 0 is fine. All arithmetic in F32; the sum of squares runs in an order that
// depends on C only. Source: arXiv:1910.07467.
struct RmsNormParams {
  TensorView y, x, w;
  TensorView residual = {};
  float eps = 1e-6f;
};
void rms_norm(const RmsNormParams& p, Stream& stream);

}  // namespace flotilla
