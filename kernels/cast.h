#pragma once

#include "kernels/stream.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// y = x in y's type; F32 ↔ BF16, rounded to nearest even. Same shape, row strides honoured.
struct CastParams {
  TensorView x, y;
};
void cast(const CastParams& p, Stream& stream);

}  // namespace flotilla
