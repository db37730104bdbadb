// A pointer, a shape and a type: what every kernel takes. Owns nothing.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "common/check.h"
#include "kernels/dtype.h"

namespace flotilla {

// Row-major; the last dimensions are contiguous, only the first may have a stride of its own (a
// slice of wider rows).
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int ndim = 0;
  std::array<int64_t, 4> shape{};
  int64_t row_stride = 0;  // elements from one index of dimension 0 to the next

  TensorView() = default;
  TensorView(void* d, DType t, std::initializer_list<int64_t> dims) : data(d), dtype(t) {
    check(dims.size() >= 1 && dims.size() <= 4, "a tensor view has 1 to 4 dimensions");
    for (const int64_t n : dims) shape[static_cast<size_t>(ndim++)] = n;
    row_stride = 1;
    for (int i = 1; i < ndim; ++i) row_stride *= shape[static_cast<size_t>(i)];
  }

  bool empty() const { return data == nullptr; }
  int64_t rows() const { return shape[0]; }
  // Elements in one row.
  int64_t cols() const {
    int64_t n = 1;
    for (int i = 1; i < ndim; ++i) n *= shape[static_cast<size_t>(i)];
    return n;
  }
  int64_t elements() const { return rows() * cols(); }
  bool contiguous() const { return rows() <= 1 || row_stride == cols(); }

  template <typename T>
  T* row(int64_t i) const {
    return static_cast<T*>(data) + i * row_stride;
  }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }

  // Rows [begin, begin + n), same columns.
  TensorView slice_rows(int64_t begin, int64_t n) const {
    check(begin >= 0 && n >= 0 && begin + n <= rows(), "slice_rows outside of the tensor");
    TensorView view = *this;
    view.data =
        static_cast<char*>(data) + begin * row_stride * static_cast<int64_t>(dtype_bytes(dtype));
    view.shape[0] = n;
    return view;
  }
  // Columns [begin, begin + n) of a matrix; keeps the row stride.
  TensorView slice_cols(int64_t begin, int64_t n) const {
    check(ndim == 2 && begin >= 0 && n >= 0 && begin + n <= shape[1],
          "slice_cols outside of the matrix");
    TensorView view = *this;
    view.data = static_cast<char*>(data) + begin * static_cast<int64_t>(dtype_bytes(dtype));
    view.shape[1] = n;
    return view;
  }
};

}  // namespace flotilla
