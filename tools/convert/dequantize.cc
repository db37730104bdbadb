#include "tools/convert/dequantize.h"

#include <cstring>

#include "kernels/dtype.h"

namespace flotilla::convert {
namespace {

constexpr int64_t kBlock = 32;

float half_at(const std::byte* from) {
  uint16_t half;
  std::memcpy(&half, from, sizeof half);
  return f16_to_f32(half);
}

void nibbles(const std::byte* from, float zero, float scale, float offset, float* out) {
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    const auto byte = static_cast<uint8_t>(from[i]);
    out[i] = (static_cast<float>(byte & 15) - zero) * scale + offset;
    out[i + kBlock / 2] = (static_cast<float>(byte >> 4) - zero) * scale + offset;
  }
}

}  // namespace

void dequantize(GgmlType type, const std::byte* from, int64_t n, float* out) {
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case GgmlType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = half_at(from + 2 * i);
      return;
    case GgmlType::kBf16:
      for (int64_t i = 0; i < n; ++i) {
        uint16_t half;
        std::memcpy(&half, from + 2 * i, sizeof half);
        out[i] = bf16_to_f32(half);
      }
      return;
    case GgmlType::kQ8_0:
      for (int64_t b = 0; b < n / kBlock; ++b, from += 34, out += kBlock) {
        const float scale = half_at(from);
        for (int64_t i = 0; i < kBlock; ++i) {
          out[i] = static_cast<float>(static_cast<int8_t>(from[2 + i])) * scale;
        }
      }
      return;
    case GgmlType::kQ4_0:
      for (int64_t b = 0; b < n / kBlock; ++b, from += 18, out += kBlock) {
        nibbles(from + 2, 8.0f, half_at(from), -0.0f, out);  // −0 changes nothing, not even −0
      }
      return;
    case GgmlType::kQ4_1:
      for (int64_t b = 0; b < n / kBlock; ++b, from += 20, out += kBlock) {
        nibbles(from + 4, 0.0f, half_at(from), half_at(from + 2), out);
      }
      return;
  }
}

}  // namespace flotilla::convert
