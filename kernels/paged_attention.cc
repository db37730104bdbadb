#include "kernels/paged_attention.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void paged_attention(const PagedAttentionParams& p, Stream& stream) {
  const int64_t t = p.q.rows(), d = p.layout.head_dim;
  const int64_t h = p.q.ndim == 3 ? p.q.shape[1] : 0;
  const int64_t s = p.context.rows();
  expect(p.q, "q").shape({t, h, d}).dtype({DType::kF32, DType::kBf16});
  expect(p.out, "out").shape({t, h, d}).dtype({DType::kF32, DType::kBf16});
  expect(p.q_offsets, "q_offsets").shape({s + 1}).dtype({DType::kI32}).contiguous();
  expect(p.context, "context").shape({s}).dtype({DType::kI32}).contiguous();
  expect(p.block_table, "block_table").shape({s, p.block_table.cols()}).dtype({DType::kI32});
  check(p.layout.dtype == DType::kF32 || p.layout.dtype == DType::kBf16,
        "the KV cache has the wrong type " + std::string(dtype_name(p.layout.dtype)));
  check(p.layout.num_kv_heads > 0 && h % p.layout.num_kv_heads == 0,
        "paged_attention: " + std::to_string(h) + " query heads are no multiple of " +
            std::to_string(p.layout.num_kv_heads) + " KV heads");
  check(
      d >= 2 && d <= 256 && d % 2 == 0,
      "paged_attention: head_dim is " + std::to_string(d) + ", expected an even number up to 256");
  check(p.layer >= 0 && p.layer < p.layout.num_layers, "paged_attention: no such layer");
  stream.kernels().paged_attention(p, stream);
}

size_t paged_attention_workspace_bytes(int64_t max_rows,
                                       int64_t num_heads,
                                       int64_t max_context,
                                       const KvLayout& layout,
                                       const Stream& stream) {
  return stream.kernels().paged_attention_workspace_bytes(
      max_rows, num_heads, max_context, layout, stream);
}

}  // namespace flotilla
