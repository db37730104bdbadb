#include "kernels/embedding.h"

#include "kernels/expect.h"
#include "kernels/kernel_table.h"

namespace flotilla {

void embedding(const EmbeddingParams& p, Stream& stream) {
  const int64_t c = p.table.cols(), t = p.ids.rows();
  expect(p.table, "table")
      .shape({p.table.rows(), c})
      .dtype({DType::kF32, DType::kBf16, DType::kF16});
  expect(p.ids, "ids").shape({t}).dtype({DType::kI32}).contiguous();
  expect(p.y, "y").shape({t, c}).dtype({DType::kF32});
  stream.kernels().embedding(p, stream);
}

void gather_rows(const GatherRowsParams& p, Stream& stream) {
  const int64_t c = p.x.cols(), r = p.rows.rows();
  expect(p.x, "x").shape({p.x.rows(), c}).dtype({DType::kF32, DType::kBf16});
  expect(p.rows, "rows").shape({r}).dtype({DType::kI32}).contiguous();
  expect(p.y, "y").shape({r, c}).dtype({p.x.dtype});
  stream.kernels().gather_rows(p, stream);
}

}  // namespace flotilla
