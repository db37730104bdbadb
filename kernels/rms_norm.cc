#include "kernels/rms_norm.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void rms_norm(const RmsNormParams& p, Stream& stream) {
  const int64_t t = p.x.rows(), c = p.x.cols();
  expect(p.x, "x").shape({t, c}).dtype({DType::kF32});
  expect(p.y, "y").shape({t, c}).dtype({DType::kF32, DType::kBf16});
  expect(p.w, "w").shape({c}).dtype({DType::kF32}).contiguous();
  if (!p.residual.empty()) expect(p.residual, "residual").shape({t, c}).dtype({DType::kF32});
  stream.kernels().rms_norm(p, stream);
}

}  // namespace flotilla
