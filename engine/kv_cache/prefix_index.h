// Which full blocks of the pool hold which tokens: lets a new prompt reuse the longest prefix that
// some sequence has computed, its generated tokens included. A block is known by the chain of
// everything before it; the tokens themselves are compared, so that two chains can never be taken
// for one another. Threads: engine thread only. Source: hash-chained blocks as in vLLM's automatic
// prefix caching.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/ids.h"
#include "engine/request.h"

namespace flotilla {

class PrefixIndex {
 public:
  explicit PrefixIndex(int32_t block_size) : block_size_(block_size) {}

  // Blocks that hold the longest known prefix of `tokens`, at most `max_blocks`. Does not own them.
  std::vector<BlockId> find(std::span<const TokenId> tokens, size_t max_blocks) const;

  // `block` now holds the block_size tokens `tokens`, behind the chain that ends in `parent` (−1:
  // at the beginning). False, and nothing changed, if that content is known already under another
  // block, or the parent is not known.
  bool insert(BlockId parent, std::span<const TokenId> tokens, BlockId block);
  bool contains(BlockId block) const { return entries_.contains(block); }
  // The known block that holds `tokens` behind `parent`, or −1.
  BlockId child(BlockId parent, std::span<const TokenId> tokens) const;
  // Forgets the block, and with it everything chained behind it: those are handed to `orphaned`, to
  // be marked as not cached.
  void erase(BlockId block, std::vector<BlockId>* orphaned);

  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    BlockId parent;
    std::vector<TokenId> tokens;
    std::vector<BlockId> children;
    uint64_t hash = 0;  // of the chain up to here
  };

  uint64_t chain_hash(uint64_t parent_hash, std::span<const TokenId> tokens) const;

  const int32_t block_size_;
  std::unordered_map<BlockId, Entry> entries_;
  std::unordered_multimap<uint64_t, BlockId> by_hash_;
};

}  // namespace flotilla
