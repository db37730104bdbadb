// (token, expert) pairs sorted by expert slot and handed out in bounded pieces: the host side of a
// grouped GEMM. Threads: the device thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/parallel/expert_exchange.h"

namespace flotilla {

// Pairs in one piece of work: bounds the scratch memory between an expert's two GEMMs.
inline constexpr int64_t kMaxExpertPairs = 4096;

class ExpertRows {
 public:
  // Forgets everything; pairs will be of slots 0 … num_slots − 1.
  void reset(int32_t num_slots);
  void add(int32_t slot, int32_t x_row, int32_t out_row) {
    pairs_.push_back({slot, x_row, out_row});
  }
  size_t size() const { return pairs_.size(); }

  // Sorts what was added, keeping the order within a slot. Then next() hands it out.
  void sort();
  // Fills the index tensors of `work` with the next piece; they stay valid until the next call.
  // False at the end.
  bool next(ExpertWork* work);

 private:
  struct Pair {
    int32_t slot, x_row, out_row;
  };

  int32_t num_slots_ = 0;
  std::vector<Pair> pairs_;
  std::vector<int32_t> x_rows_, out_rows_;  // sorted
  std::vector<int32_t> starts_;             // [slots + 1]
  int64_t handed_out_ = 0;
  std::vector<int32_t> piece_offsets_;
};

}  // namespace flotilla
