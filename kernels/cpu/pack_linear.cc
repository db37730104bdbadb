// Weights into panels (isa_kernels.h), at load. Plain code for every CPU: it is bound by memory.
#include <emmintrin.h>

#include <array>
#include <cstring>

#include "kernels/cpu/cpu_stream.h"

namespace flotilla::cpu {
namespace {

constexpr int64_t kUnits = 128;  // converted at a time

constexpr std::array<float, 256> kF8Values = [] {
  std::array<float, 256> values{};
  for (size_t i = 0; i < values.size(); ++i) values[i] = f8e4m3_to_f32(static_cast<uint8_t>(i));
  return values;
}();

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename T>
T read(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

float read_element(const char* at, DType type) {
  switch (type) {
    case DType::kF32:
      return read<float>(at);
    case DType::kBf16:
      return bf16_to_f32(read<uint16_t>(at));
    case DType::kF16:
      return f16_to_f32(read<uint16_t>(at));
    default:
      return kF8Values[read<uint8_t>(at)];
  }
}

// One source and the panels it goes to.
class Packer {
 public:
  explicit Packer(const PackLinearParams& p)
      : p_(p),
        k_(p.dst.k),
        k_per_unit_(p.dst.dtype == DType::kBf16 ? 2 : 1),
        units_(divide_up(k_, k_per_unit_)),
        element_(static_cast<int64_t>(dtype_bytes(p.src.dtype))),
        // Rows that need nothing but to be taken apart in dwords.
        direct_(!p.transposed && p.src.dtype == p.dst.dtype) {}

  void pack() const {
    const int64_t rows = p_.transposed ? p_.src.cols() : p_.src.rows();
    const int64_t end = p_.first_row + rows;
    for (int64_t panel = p_.first_row / kPanel; panel * kPanel < end; ++panel) {
      const int64_t first = std::max(panel * kPanel, p_.first_row);
      const int64_t last = std::min((panel + 1) * kPanel, end);
      pack_lanes(panel, first, last);
      if (last == p_.dst.n) clear_lanes(panel, last - panel * kPanel);
    }
  }

 private:
  uint32_t* unit_at(int64_t panel, int64_t unit) const {
    return static_cast<uint32_t*>(p_.dst.data) + (panel * units_ + unit) * kPanel;
  }

  void clear_lanes(int64_t panel, int64_t from_lane) const {
    for (int64_t unit = 0; unit < units_; ++unit) {
      std::fill(unit_at(panel, unit) + from_lane, unit_at(panel, unit) + kPanel, 0);
    }
  }

  // Weight rows [first, last), all of one panel.
  void pack_lanes(int64_t panel, int64_t first, int64_t last) const {
    alignas(64) uint32_t converted[kPanel][kUnits];
    const int64_t lane = first - panel * kPanel, lanes = last - first;
    for (int64_t unit = 0; unit < units_; unit += kUnits) {
      const int64_t n = std::min(kUnits, units_ - unit);
      const char* rows[kPanel];
      const bool whole = (unit + n) * k_per_unit_ <= k_;
      if (direct_ && whole) {
        for (int64_t i = 0; i < lanes; ++i) {
          rows[i] = source_at(first - p_.first_row + i, unit * k_per_unit_);
        }
      } else {
        convert(first - p_.first_row, lanes, unit * k_per_unit_, n * k_per_unit_, converted);
        for (int64_t i = 0; i < lanes; ++i) rows[i] = reinterpret_cast<const char*>(converted[i]);
      }
      interleave(rows, lanes, n, unit_at(panel, unit) + lane);
    }
  }

  // Element (row, k) of the source as a weight.
  const char* source_at(int64_t row, int64_t k) const {
    const int64_t index = p_.transposed ? k * p_.src.row_stride + row : row * p_.src.row_stride + k;
    return static_cast<const char*>(p_.src.data) + index * element_;
  }

  float value_at(int64_t row, int64_t k) const {
    const float value = read_element(source_at(row, k), p_.src.dtype);
    if (p_.scales.empty()) return value;
    const int64_t i = p_.transposed ? k : row, j = p_.transposed ? row : k;
    return value * p_.scales.row<float>(i / p_.scale_block)[j / p_.scale_block];
  }

  // Elements [k, k + n) of the rows in the stored type; behind the last one they are zero.
  void convert(
      int64_t row, int64_t rows, int64_t k, int64_t n, uint32_t (&out)[kPanel][kUnits]) const {
    const int64_t there = std::min(n, k_ - k);
    const bool bf16 = p_.dst.dtype == DType::kBf16;
    const auto set = [&](int64_t r, int64_t i, float value) {
      char* const at = reinterpret_cast<char*>(out[r]);
      if (bf16) {
        const uint16_t half = f32_to_bf16(value);
        std::memcpy(at + 2 * i, &half, sizeof half);
      } else {
        std::memcpy(at + 4 * i, &value, sizeof value);
      }
    };
    if (p_.transposed) {
      for (int64_t i = 0; i < there; ++i) {
        for (int64_t r = 0; r < rows; ++r) set(r, i, value_at(row + r, k + i));
      }
    } else {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < there; ++i) set(r, i, value_at(row + r, k + i));
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = there; i < n; ++i) set(r, i, 0.0f);
    }
  }

  // out[unit][lane] = rows[lane][unit], four lanes and units at a time.
  static void interleave(const char* const* rows, int64_t lanes, int64_t units, uint32_t* out) {
    int64_t lane = 0;
    for (; lane + 4 <= lanes; lane += 4) {
      int64_t unit = 0;
      for (; unit + 4 <= units; unit += 4) {
        __m128 a[4];
        for (int i = 0; i < 4; ++i) {
          a[i] = _mm_loadu_ps(reinterpret_cast<const float*>(rows[lane + i] + 4 * unit));
        }
        _MM_TRANSPOSE4_PS(a[0], a[1], a[2], a[3]);
        for (int i = 0; i < 4; ++i) {
          _mm_storeu_ps(reinterpret_cast<float*>(out + (unit + i) * kPanel + lane), a[i]);
        }
      }
      for (; unit < units; ++unit) {
        for (int i = 0; i < 4; ++i) {
          out[unit * kPanel + lane + i] = read<uint32_t>(rows[lane + i] + 4 * unit);
        }
      }
    }
    for (; lane < lanes; ++lane) {
      for (int64_t unit = 0; unit < units; ++unit) {
        out[unit * kPanel + lane] = read<uint32_t>(rows[lane] + 4 * unit);
      }
    }
  }

  const PackLinearParams& p_;
  const int64_t k_, k_per_unit_, units_, element_;
  const bool direct_;
};

}  // namespace

size_t packed_linear_bytes(int64_t n, int64_t k, DType stored, const Stream&) {
  const int64_t units = divide_up(k, stored == DType::kBf16 ? 2 : 1);
  return static_cast<size_t>(divide_up(n, kPanel) * units * kPanel) * sizeof(uint32_t);
}

void pack_linear(const PackLinearParams& p, const Stream&) { Packer(p).pack(); }

}  // namespace flotilla::cpu
