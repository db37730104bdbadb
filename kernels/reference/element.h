// One element of any stored type, as a float.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/tensor_view.h"

namespace flotilla::reference {

// `index` counts elements; `data` may have any alignment.
inline float load_element(const void* data, DType dtype, int64_t index) {
  const char* at =
      static_cast<const char*>(data) + index * static_cast<int64_t>(dtype_bytes(dtype));
  uint8_t byte;
  uint16_t half;
  float value;
  switch (dtype) {
    case DType::kF32:
      std::memcpy(&value, at, sizeof value);
      return value;
    case DType::kBf16:
      std::memcpy(&half, at, sizeof half);
      return bf16_to_f32(half);
    case DType::kF16:
      std::memcpy(&half, at, sizeof half);
      return f16_to_f32(half);
    case DType::kF8E4M3:
      std::memcpy(&byte, at, sizeof byte);
      return f8e4m3_to_f32(byte);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  check(false, "load_element: no floating-point type");
  return 0.0f;
}

// Rounds to nearest even for BF16.
inline void store_element(void* data, DType dtype, int64_t index, float value) {
  if (dtype == DType::kBf16) {
    static_cast<uint16_t*>(data)[index] = f32_to_bf16(value);
  } else {
    check(dtype == DType::kF32, "store_element: results are F32 or BF16");
    static_cast<float*>(data)[index] = value;
  }
}

inline float load(const TensorView& view, int64_t row, int64_t column) {
  return load_element(view.data, view.dtype, row * view.row_stride + column);
}
inline void store(const TensorView& view, int64_t row, int64_t column, float value) {
  store_element(view.data, view.dtype, row * view.row_stride + column, value);
}

}  // namespace flotilla::reference
