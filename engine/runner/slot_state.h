// What the device keeps of a sequence between steps, and how a step's sampling row comes of it.
// Threads: the device thread.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/step.h"
#include "kernels/sampler.h"

namespace flotilla {

// The arrays that SamplerRow points into, for all rows of a step.
struct SamplerBatch {
  std::vector<SamplerRow> rows;
  std::vector<SeenToken> seen;
  std::vector<BiasedToken> bias;
  std::vector<int32_t> banned;

  void clear();
};

class SlotState {
 public:
  void reset(const SlotReset& reset);
  void append_blocks(const std::vector<BlockId>& blocks) {
    table_.insert(table_.end(), blocks.begin(), blocks.end());
  }

  const std::vector<BlockId>& table() const { return table_; }
  TokenId last_token() const { return last_token_; }

  // Adds the row that samples the token at absolute position `position`.
  void add_sampler_row(int64_t position, SamplerBatch* batch) const;
  // The device has sampled `token`.
  void append(TokenId token);

 private:
  bool needs_counts() const;

  std::shared_ptr<const SequenceSampling> sampling_;
  std::vector<BlockId> table_;
  TokenId last_token_ = -1;
  uint32_t num_produced_ = 0;
  std::vector<TokenId> produced_;                   // kept for bad words only
  std::vector<SeenToken> seen_;                     // kept for penalties only
  std::unordered_map<TokenId, size_t> seen_index_;  // token → place in seen_
};

}  // namespace flotilla
