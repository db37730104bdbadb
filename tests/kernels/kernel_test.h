// What the kernel tests share: tensors that own their memory, streams of every instruction set that
// this CPU has, comparisons.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "kernels/kernel_table.h"

namespace flotilla {

// The instruction sets of kernels/cpu/ that this CPU can run.
inline std::vector<CpuIsa> fast_isas() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (cpu_has(isa)) isas.push_back(isa);
  }
  return isas;
}

inline std::unique_ptr<Stream> make_stream(CpuIsa isa, int num_threads = 1) {
  return make_cpu_device({.num_threads = num_threads, .cores = {}, .isa = isa})->create_stream();
}

// A tensor with memory of its own; rows may lie `gap` elements apart from each other. Gaps and the
// surroundings hold NaN: who reads or writes them is found out.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, std::initializer_list<int64_t> dims, int64_t gap = 0) {
    view_ = TensorView(nullptr, dtype, dims);
    view_.row_stride += gap;
    const int64_t elements = kMargin * 2 + view_.rows() * view_.row_stride;
    const size_t bytes = static_cast<size_t>(elements) * dtype_bytes(dtype);
    memory_.reset(static_cast<char*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64)));
    std::memset(memory_.get(), 0xFF, (bytes + 127) / 64 * 64);  // NaN in every floating type
    view_.data = memory_.get() + kMargin * static_cast<int64_t>(dtype_bytes(dtype));
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }
  const TensorView* operator->() const { return &view_; }

  float at(int64_t row, int64_t column) const {
    const void* p = element(row, column);
    switch (view_.dtype) {
      case DType::kF32:
        return *static_cast<const float*>(p);
      case DType::kBf16:
        return bf16_to_f32(*static_cast<const uint16_t*>(p));
      case DType::kF16:
        return f16_to_f32(*static_cast<const uint16_t*>(p));
      case DType::kF8E4M3:
        return f8e4m3_to_f32(*static_cast<const uint8_t*>(p));
      case DType::kI32:
        return static_cast<float>(*static_cast<const int32_t*>(p));
      case DType::kU8:
        break;
    }
    return 0.0f;
  }
  // F16 and F8 are only ever filled with bits.
  void set(int64_t row, int64_t column, float value) {
    void* p = element(row, column);
    switch (view_.dtype) {
      case DType::kF32:
        *static_cast<float*>(p) = value;
        break;
      case DType::kBf16:
        *static_cast<uint16_t*>(p) = f32_to_bf16(value);
        break;
      case DType::kI32:
        *static_cast<int32_t*>(p) = static_cast<int32_t>(value);
        break;
      default:
        FAIL("no conversion to this type");
    }
  }
  void set_bits(int64_t row, int64_t column, uint16_t bits) {
    void* p = element(row, column);
    if (dtype_bytes(view_.dtype) == 1) {
      *static_cast<uint8_t*>(p) = static_cast<uint8_t>(bits);
    } else {
      *static_cast<uint16_t*>(p) = bits;
    }
  }
  Tensor& fill(const std::function<float(int64_t, int64_t)>& f) {
    for (int64_t r = 0; r < view_.rows(); ++r) {
      for (int64_t c = 0; c < view_.cols(); ++c) set(r, c, f(r, c));
    }
    return *this;
  }
  Tensor& fill_random(uint32_t seed, float scale = 1.0f) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-scale, scale);
    return fill([&](int64_t, int64_t) { return uniform(random); });
  }
  // The bytes of one row, without gaps.
  std::string row_bytes(int64_t row) const {
    return {static_cast<const char*>(element(row, 0)),
            static_cast<size_t>(view_.cols()) * dtype_bytes(view_.dtype)};
  }
  // No gap and no margin was written.
  bool surroundings_untouched() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(memory_.get());
    const size_t e = dtype_bytes(view_.dtype);
    const auto clean = [&](int64_t begin, int64_t end) {
      for (size_t i = static_cast<size_t>(begin) * e; i < static_cast<size_t>(end) * e; ++i) {
        if (bytes[i] != 0xFF) return false;
      }
      return true;
    };
    if (!clean(0, kMargin)) return false;
    for (int64_t r = 0; r < view_.rows(); ++r) {
      const int64_t row = kMargin + r * view_.row_stride;
      if (!clean(row + view_.cols(), row + view_.row_stride)) return false;
    }
    const int64_t end = kMargin + view_.rows() * view_.row_stride;
    return clean(end, end + kMargin);
  }

 private:
  static constexpr int64_t kMargin = 64;
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  void* element(int64_t row, int64_t column) const {
    return static_cast<char*>(view_.data) +
           (row * view_.row_stride + column) * static_cast<int64_t>(dtype_bytes(view_.dtype));
  }
  std::unique_ptr<char, Free> memory_;
  TensorView view_;
};

inline Tensor int_tensor(const std::vector<int32_t>& values) {
  Tensor t(DType::kI32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t->as<int32_t>());
  return t;
}

// Largest |a - b| / (absolute + relative · |b|): at most 1 if they are close. Infinity if one is
// NaN and the other is not.
inline double worst_difference(const Tensor& a, const Tensor& b, double absolute, double relative) {
  double worst = 0.0;
  for (int64_t r = 0; r < a->rows(); ++r) {
    for (int64_t c = 0; c < a->cols(); ++c) {
      const double x = a.at(r, c), y = b.at(r, c);
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      const double d = std::abs(x - y) / (absolute + relative * std::abs(y));
      worst = std::max(worst, std::isnan(d) ? HUGE_VAL : d);
    }
  }
  return worst;
}
// Rounding of results: F32 sums in another order; BF16 may in addition fall to the other neighbour.
inline double tolerance(DType dtype) { return dtype == DType::kBf16 ? 0x1p-7 : 4e-6; }

// Scratch memory aligned to 64, filled with NaN.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : tensor_(DType::kU8, {static_cast<int64_t>(bytes)}) {}
  void* data() const { return tensor_->data; }
  bool surroundings_untouched() const { return tensor_.surroundings_untouched(); }

 private:
  Tensor tensor_;
};

// What the process says when f breaks an invariant; fails the test if it does not.
std::string dying_words(const std::function<void()>& f);

}  // namespace flotilla
