#include "engine/parallel/expert_rows.h"

#include <algorithm>

namespace flotilla {

void ExpertRows::reset(int32_t num_slots) {
  num_slots_ = num_slots;
  pairs_.clear();
  handed_out_ = 0;
}

void ExpertRows::sort() {
  starts_.assign(static_cast<size_t>(num_slots_) + 1, 0);
  for (const Pair& pair : pairs_) ++starts_[static_cast<size_t>(pair.slot) + 1];
  for (size_t s = 1; s < starts_.size(); ++s) starts_[s] += starts_[s - 1];
  x_rows_.resize(pairs_.size());
  out_rows_.resize(pairs_.size());
  std::vector<int32_t>& at = piece_offsets_;
  at.assign(starts_.begin(), starts_.end());
  for (const Pair& pair : pairs_) {
    const auto i = static_cast<size_t>(at[static_cast<size_t>(pair.slot)]++);
    x_rows_[i] = pair.x_row;
    out_rows_[i] = pair.out_row;
  }
  handed_out_ = 0;
}

bool ExpertRows::next(ExpertWork* work) {
  const auto total = static_cast<int64_t>(pairs_.size());
  if (handed_out_ == total) return false;
  const int64_t begin = handed_out_;
  const int64_t n = std::min(kMaxExpertPairs, total - begin);
  handed_out_ += n;
  piece_offsets_.resize(starts_.size());
  for (size_t s = 0; s < starts_.size(); ++s) {
    piece_offsets_[s] = static_cast<int32_t>(std::clamp<int64_t>(starts_[s] - begin, 0, n));
  }
  work->x_rows = TensorView(x_rows_.data() + begin, DType::kI32, {n});
  work->out_rows = TensorView(out_rows_.data() + begin, DType::kI32, {n});
  work->offsets =
      TensorView(piece_offsets_.data(), DType::kI32, {static_cast<int64_t>(piece_offsets_.size())});
  work->max_pairs = n;
  return true;
}

}  // namespace flotilla
