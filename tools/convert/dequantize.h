// GGUF's number formats to floats. Source: ggml-quants.c (dequantize_row_*).
#pragma once

#include <cstddef>
#include <cstdint>

#include "tools/convert/gguf.h"

namespace flotilla::convert {

// out[i] for n values, n a multiple of the type's block. Exact: one rounding at most, in Q4_1.
//   Q8_0  f16 d, 32 × int8               x = q · d
//   Q4_0  f16 d, 16 bytes                x = (q − 8) · d
//   Q4_1  f16 d, f16 m, 16 bytes         x = q · d + m
// In the 4-bit types value i is the low half of byte i, value i + 16 its high half.
void dequantize(GgmlType type, const std::byte* from, int64_t n, float* out);

}  // namespace flotilla::convert
