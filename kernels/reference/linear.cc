#include "kernels/reference/element.h"
#include "kernels/reference/reference_table.h"

// The packed layout of this table is the plain one: [N, K] row-major.
namespace flotilla::reference {
namespace {

void multiply_row(const TensorView& x,
                  int64_t x_row,
                  const PackedWeight& w,
                  const float* bias,
                  const TensorView& y,
                  int64_t y_row) {
  for (int64_t n = 0; n < w.n; ++n) {
    double sum = 0.0;
    for (int64_t k = 0; k < w.k; ++k) {
      sum += static_cast<double>(load(x, x_row, k)) * load_element(w.data, w.dtype, n * w.k + k);
    }
    store(y, y_row, n, static_cast<float>(sum) + (bias ? bias[n] : 0.0f));
  }
}

}  // namespace

size_t packed_linear_bytes(int64_t n, int64_t k, DType stored, const Stream&) {
  return static_cast<size_t>(n * k) * dtype_bytes(stored);
}

void pack_linear(const PackLinearParams& p, const Stream&) {
  for (int64_t i = 0; i < p.src.rows(); ++i) {
    for (int64_t j = 0; j < p.src.cols(); ++j) {
      float value = load(p.src, i, j);
      if (!p.scales.empty()) value *= load(p.scales, i / p.scale_block, j / p.scale_block);
      const int64_t n = p.first_row + (p.transposed ? j : i);
      const int64_t k = p.transposed ? i : j;
      store_element(p.dst.data, p.dst.dtype, n * p.dst.k + k, value);
    }
  }
}

void linear(const LinearParams& p, Stream&) {
  for (int64_t t = 0; t < p.x.rows(); ++t) multiply_row(p.x, t, p.w, p.bias.as<float>(), p.y, t);
}

void grouped_linear(const GroupedLinearParams& p, Stream&) {
  const int32_t* offsets = p.offsets.as<int32_t>();
  for (int64_t g = 0; g < p.num_groups; ++g) {
    for (int64_t r = offsets[g]; r < offsets[g + 1]; ++r) {
      check(!p.w[g].empty(), "grouped_linear: a group with rows has no weight");
      const int64_t from = p.x_rows.empty() ? r : p.x_rows.as<int32_t>()[r];
      const int64_t to = p.out_rows.empty() ? r : p.out_rows.as<int32_t>()[r];
      multiply_row(p.x, from, p.w[g], nullptr, p.y, to);
    }
  }
}

}  // namespace flotilla::reference
