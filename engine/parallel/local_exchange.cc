#include "engine/parallel/local_exchange.h"

#include "kernels/moe.h"

namespace flotilla {

Status LocalExchange::dispatch(int64_t, const TensorView& x, const TensorView& ids, Stream&) {
  x_ = x;
  rows_.reset(num_experts_);
  const int64_t k = ids.cols();
  for (int64_t t = 0; t < ids.rows(); ++t) {
    for (int64_t j = 0; j < k; ++j) {
      rows_.add(ids.row<int32_t>(t)[j], static_cast<int32_t>(t), static_cast<int32_t>(t * k + j));
    }
  }
  rows_.sort();
  outputs_.resize(std::max(outputs_.size(), static_cast<size_t>(ids.elements() * hidden_)));
  return ok_status();
}

StatusOr<bool> LocalExchange::next_work(ExpertWork* work, Stream&) {
  if (!rows_.next(work)) return false;
  work->x = x_;
  work->y = TensorView(outputs_.data(), DType::kF32, {static_cast<int64_t>(rows_.size()), hidden_});
  return true;
}

Status LocalExchange::combine(const TensorView& weights,
                              const TensorView& base,
                              const TensorView& y,
                              Stream& stream) {
  const TensorView rows(outputs_.data(), DType::kF32, {weights.elements(), hidden_});
  moe_combine({.rows = rows, .weights = weights, .base = base, .y = y}, stream);
  return ok_status();
}

}  // namespace flotilla
