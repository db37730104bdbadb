#include "kernels/moe.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void moe_topk(const MoeTopkParams& p, Stream& stream) {
  const int64_t t = p.logits.rows(), e = p.logits.cols(), k = p.ids.cols();
  expect(p.logits, "logits").shape({t, e}).dtype({DType::kF32});
  if (!p.bias.empty()) expect(p.bias, "bias").shape({e}).dtype({DType::kF32}).contiguous();
  expect(p.ids, "ids").shape({t, k}).dtype({DType::kI32});
  expect(p.weights, "weights").shape({t, k}).dtype({DType::kF32});
  check(k >= 1 && k <= e,
        "moe_topk: k is " + std::to_string(k) + ", expected 1 to " + std::to_string(e));
  stream.kernels().moe_topk(p, stream);
}

void moe_combine(const MoeCombineParams& p, Stream& stream) {
  const int64_t t = p.y.rows(), c = p.y.cols(), k = p.weights.cols();
  expect(p.y, "y").shape({t, c}).dtype({DType::kF32});
  expect(p.weights, "weights").shape({t, k}).dtype({DType::kF32});
  expect(p.rows, "rows").shape({t * k, c}).dtype({DType::kF32});
  if (!p.base.empty()) expect(p.base, "base").shape({t, c}).dtype({DType::kF32});
  stream.kernels().moe_combine(p, stream);
}

}  // namespace flotilla
