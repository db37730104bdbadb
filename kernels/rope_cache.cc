#include "kernels/rope_cache.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void rope_cache(const RopeCacheParams& p, Stream& stream) {
  const int64_t t = p.q.rows(), d = p.layout.head_dim, kv = p.layout.num_kv_heads;
  const int64_t h = p.q.ndim == 3 ? p.q.shape[1] : 0;
  expect(p.q, "q").shape({t, h, d}).dtype({DType::kF32, DType::kBf16});
  expect(p.qkv, "qkv").shape({t, (h + 2 * kv) * d}).dtype({DType::kF32});
  if (!p.q_norm.empty()) expect(p.q_norm, "q_norm").shape({d}).dtype({DType::kF32}).contiguous();
  if (!p.k_norm.empty()) expect(p.k_norm, "k_norm").shape({d}).dtype({DType::kF32}).contiguous();
  expect(p.cos, "cos").shape({p.cos.rows(), d / 2}).dtype({DType::kF32});
  expect(p.sin, "sin").shape({p.cos.rows(), d / 2}).dtype({DType::kF32});
  expect(p.positions, "positions").shape({t}).dtype({DType::kI32}).contiguous();
  expect(p.slots, "slots").shape({t}).dtype({DType::kI32}).contiguous();
  check(p.layout.dtype == DType::kF32 || p.layout.dtype == DType::kBf16,
        "the KV cache has the wrong type " + std::string(dtype_name(p.layout.dtype)));
  check(d >= 2 && d <= 256 && d % 2 == 0,
        "rope_cache: head_dim is " + std::to_string(d) + ", expected an even number up to 256");
  check(p.layer >= 0 && p.layer < p.layout.num_layers, "rope_cache: no such layer");
  stream.kernels().rope_cache(p, stream);
}

}  // namespace flotilla
