#include <cmath>

#include "kernels/reference/element.h"
#include "kernels/reference/reference_table.h"

namespace flotilla::reference {

void embedding(const EmbeddingParams& p, Stream&) {
  for (int64_t t = 0; t < p.y.rows(); ++t) {
    const int32_t id = p.ids.as<int32_t>()[t];
    check(id >= 0 && id < p.table.rows(), "embedding: a token id lies outside of the table");
    for (int64_t c = 0; c < p.y.cols(); ++c) store(p.y, t, c, load(p.table, id, c));
  }
}

void gather_rows(const GatherRowsParams& p, Stream&) {
  for (int64_t i = 0; i < p.y.rows(); ++i) {
    const int32_t row = p.rows.as<int32_t>()[i];
    check(row >= 0 && row < p.x.rows(), "gather_rows: a row lies outside of x");
    for (int64_t c = 0; c < p.y.cols(); ++c) store(p.y, i, c, load(p.x, row, c));
  }
}

void rms_norm(const RmsNormParams& p, Stream&) {
  const int64_t width = p.x.cols();
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    double squares = 0.0;
    for (int64_t c = 0; c < width; ++c) {
      float v = load(p.x, t, c);
      if (!p.residual.empty()) {
        v += load(p.residual, t, c);
        store(p.residual, t, c, v);
      }
      squares += static_cast<double>(v) * v;
    }
    const TensorView& v = p.residual.empty() ? p.x : p.residual;
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(width) + p.eps);
    for (int64_t c = 0; c < width; ++c) {
      store(p.y, t, c, static_cast<float>(load(v, t, c) * scale * p.w.as<float>()[c]));
    }
  }
}

void swiglu(const SwiGluParams& p, Stream&) {
  const int64_t width = p.y.cols();
  for (int64_t r = 0; r < p.y.rows(); ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const double z = load(p.gate_up, r, i);
      const double up = load(p.gate_up, r, width + i);
      store(p.y, r, i, static_cast<float>(z / (1.0 + std::exp(-z)) * up));
    }
  }
}

void cast(const CastParams& p, Stream&) {
  for (int64_t r = 0; r < p.y.rows(); ++r) {
    for (int64_t c = 0; c < p.y.cols(); ++c) store(p.y, r, c, load(p.x, r, c));
  }
}

}  // namespace flotilla::reference
