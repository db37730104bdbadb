// Dense layers over packed weights. How a weight lies in memory is the device's business: it is
// packed once, at load.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// A weight [N, K] in the layout of the kernel table that packed it. Owns nothing.
struct PackedWeight {
  void* data = nullptr;
  int64_t n = 0;              // output width
  int64_t k = 0;              // input width
  DType dtype = DType::kF32;  // stored type: F32 or BF16

  bool empty() const { return data == nullptr; }
};

// Bytes that pack_linear needs for [n, k]; the data pointer must be aligned to 64.
size_t packed_linear_bytes(int64_t n, int64_t k, DType stored, const Stream& stream);

// Writes rows [first_row, first_row + src rows) of `dst`. Several sources may fill one weight (q,
// k, v; gate, up), in any order; all rows together must be written before use. Rows that pad the
// layout are zero.
//   src: [rows, K] if not transposed, else [K, rows]; F32|BF16|F16|F8E4M3; host memory, any
//   alignment, row stride honoured. scales: F8E4M3 only: [ceil(src dim 0 / block), ceil(src dim 1 /
//   block)] F32; the value is q · scale of its block.
// BF16 from F32, F16 or F8 is rounded to nearest even. Complete when it returns. Threads: disjoint
// sources may be packed at the same time.
struct PackLinearParams {
  TensorView src;
  bool transposed = false;
  TensorView scales = {};
  int64_t scale_block = 128;
  PackedWeight dst;
  int64_t first_row = 0;
};
void pack_linear(const PackLinearParams& p, const Stream& stream);

// y[t,:] = x[t,:] · Wᵀ + bias
// x [T, K] F32|BF16, row stride honoured; w [N, K]; bias [N] F32, optional; y [T, N] F32|BF16, row
// stride honoured; T == 0 is fine. Sums in F32, in an order that depends on K only: never on T, on
// the number of threads or on N. x BF16 with w BF16 may multiply pairs exactly and add them in F32
// (vdpbf16ps). x F32 is used as it is.
struct LinearParams {
  TensorView x;
  PackedWeight w;
  TensorView bias = {};
  TensorView y;
};
void linear(const LinearParams& p, Stream& stream);

// One GEMM per group over rows sorted by group; the experts of a Mixture-of-Experts layer.
//   y[out_rows[r],:] = x[x_rows[r],:] · W_gᵀ      for offsets[g] <= r < offsets[g+1]
// x [Tx, K]; x_rows [R] I32, optional (r itself); out_rows [R] I32, optional (r itself); offsets [G
// + 1] I32, ascending, from 0; w: G weights of one shape and type (a group without rows may be
// empty()); y [*, N] F32|BF16. Only rows named are written. Sums as in linear(): a row's result
// does not depend on which other rows are there.
struct GroupedLinearParams {
  TensorView x;
  TensorView x_rows = {};
  TensorView offsets;
  const PackedWeight* w = nullptr;  // [G], host memory
  int64_t num_groups = 0;
  TensorView out_rows = {};
  TensorView y;
};
void grouped_linear(const GroupedLinearParams& p, Stream& stream);

}  // namespace flotilla
