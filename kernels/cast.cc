#include "kernels/cast.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void cast(const CastParams& p, Stream& stream) {
  expect(p.x, "x").dtype({DType::kF32, DType::kBf16});
  expect(p.y, "y").dtype({DType::kF32, DType::kBf16});
  check(p.x.ndim == p.y.ndim && p.x.shape == p.y.shape, "cast: x and y must have the same shape");
  stream.kernels().cast(p, stream);
}

}  // namespace flotilla
