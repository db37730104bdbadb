#include "kernels/linear.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {
namespace {

void expect_weight(const PackedWeight& w, int64_t n, int64_t k) {
  check(!w.empty(), "w is empty");
  check(w.n == n && w.k == k,
        "w has the wrong shape: got [" + std::to_string(w.n) + ", " + std::to_string(w.k) +
            "], expected [" + std::to_string(n) + ", " + std::to_string(k) + "]");
  check(w.dtype == DType::kF32 || w.dtype == DType::kBf16,
        "w has the wrong type " + std::string(dtype_name(w.dtype)));
}

}  // namespace

size_t packed_linear_bytes(int64_t n, int64_t k, DType stored, const Stream& stream) {
  check(n >= 0 && k >= 0, "packed_linear_bytes: a dimension is negative");
  check(stored == DType::kF32 || stored == DType::kBf16, "weights are stored as F32 or BF16");
  return stream.kernels().packed_linear_bytes(n, k, stored, stream);
}

void pack_linear(const PackLinearParams& p, const Stream& stream) {
  const bool fp8 = p.src.dtype == DType::kF8E4M3;
  const int64_t rows = p.transposed ? p.src.cols() : p.src.rows();
  const int64_t k = p.transposed ? p.src.rows() : p.src.cols();
  expect(p.src, "src")
      .shape({p.src.rows(), p.src.cols()})
      .dtype({DType::kF32, DType::kBf16, DType::kF16, DType::kF8E4M3});
  expect_weight(p.dst, p.dst.n, k);
  check(reinterpret_cast<uintptr_t>(p.dst.data) % 64 == 0, "packed weights must be aligned to 64");
  check(p.first_row >= 0 && p.first_row + rows <= p.dst.n,
        "pack_linear: rows " + std::to_string(p.first_row) + " to " +
            std::to_string(p.first_row + rows) + " lie outside of " + std::to_string(p.dst.n));
  check(fp8 == !p.scales.empty(), "pack_linear: F8_E4M3, and nothing else, needs scales");
  if (fp8) {
    check(p.scale_block > 0, "pack_linear: scale_block must be positive");
    const auto blocks = [&](int64_t size) { return (size + p.scale_block - 1) / p.scale_block; };
    expect(p.scales, "scales")
        .shape({blocks(p.src.rows()), blocks(p.src.cols())})
        .dtype({DType::kF32});
  }
  stream.kernels().pack_linear(p, stream);
}

void linear(const LinearParams& p, Stream& stream) {
  const int64_t t = p.x.rows(), k = p.x.cols(), n = p.y.cols();
  expect(p.x, "x").shape({t, k}).dtype({DType::kF32, DType::kBf16});
  expect(p.y, "y").shape({t, n}).dtype({DType::kF32, DType::kBf16});
  expect_weight(p.w, n, k);
  if (!p.bias.empty()) expect(p.bias, "bias").shape({n}).dtype({DType::kF32}).contiguous();
  stream.kernels().linear(p, stream);
}

void grouped_linear(const GroupedLinearParams& p, Stream& stream) {
  const int64_t k = p.x.cols(), n = p.y.cols();
  expect(p.x, "x").shape({p.x.rows(), k}).dtype({DType::kF32, DType::kBf16});
  expect(p.y, "y").shape({p.y.rows(), n}).dtype({DType::kF32, DType::kBf16});
  expect(p.offsets, "offsets").shape({p.num_groups + 1}).dtype({DType::kI32}).contiguous();
  if (!p.x_rows.empty()) {
    expect(p.x_rows, "x_rows").shape({p.x_rows.rows()}).dtype({DType::kI32}).contiguous();
  }
  if (!p.out_rows.empty()) {
    expect(p.out_rows, "out_rows").shape({p.out_rows.rows()}).dtype({DType::kI32}).contiguous();
  }
  DType stored = DType::kU8;
  for (int64_t g = 0; g < p.num_groups; ++g) {
    if (p.w[g].empty()) continue;
    expect_weight(p.w[g], n, k);
    if (stored == DType::kU8) stored = p.w[g].dtype;
    check(p.w[g].dtype == stored, "grouped_linear: all weights must be of one type");
  }
  stream.kernels().grouped_linear(p, stream);
}

}  // namespace flotilla
