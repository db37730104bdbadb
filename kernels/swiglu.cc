#include "kernels/swiglu.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void swiglu(const SwiGluParams& p, Stream& stream) {
  const int64_t r = p.y.rows(), i = p.y.cols();
  expect(p.gate_up, "gate_up").shape({r, 2 * i}).dtype({DType::kF32});
  expect(p.y, "y").shape({r, i}).dtype({DType::kF32, DType::kBf16});
  stream.kernels().swiglu(p, stream);
}

}  // namespace flotilla
