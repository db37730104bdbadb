// The KV cache's free list: hands out block ids, counts who shares each, takes them back. Ids only:
// KvCache owns the memory, and nothing here knows what a request is. A block without owners may
// still be cached (known to the prefix index); such blocks are taken last, the longest unused
// first. Threads: engine thread only, no locks. Source: paged layout of vLLM (arXiv:2309.06180).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "common/ids.h"

namespace flotilla {

class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);  // all free; num_blocks ≥ 0

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  // Blocks that try_allocate() could hand out: free ones and cached ones without owner.
  int32_t num_available() const { return static_cast<int32_t>(free_.size() + evictable_.size()); }
  bool owned(BlockId block) const { return at(block).owners > 0; }

  // Takes n blocks, one owner each. nullopt, and nothing taken, if fewer than n are available. For
  // a cached block that is given away `evicted` is called first. O(n).
  [[nodiscard]] std::optional<std::vector<BlockId>> try_allocate(int32_t n);
  // One more owner of a block that is owned or cached.
  void share(BlockId block);
  // Drops one owner from each block; the last one makes it available at once. Only when no
  // submitted step still reads it. In a sequence's order: of its cached blocks the last will be
  // evicted first.
  void release(std::span<const BlockId> blocks);

  // The prefix index knows the block's content from now on / no longer.
  void set_cached(BlockId block, bool cached);
  void on_evict(std::function<void(BlockId)> evicted) { evicted_ = std::move(evicted); }

  // Grows each time the block is handed out anew: a late writer or reader that remembers an older
  // one must not touch it.
  uint32_t generation(BlockId block) const { return at(block).generation; }
  // Held for a transfer to or from another process: counts as an owner.
  void pin(BlockId block) { share(block); }
  void unpin(BlockId block) { release({&block, 1}); }

 private:
  struct Block {
    int32_t owners = 0;
    uint32_t generation = 0;
    bool cached = false;
    std::list<BlockId>::iterator place;  // in evictable_, while cached without owners
  };

  const Block& at(BlockId block) const { return blocks_[static_cast<size_t>(block.value)]; }
  Block& at(BlockId block) { return blocks_[static_cast<size_t>(block.value)]; }

  std::vector<Block> blocks_;
  std::vector<BlockId> free_;     // neither owned nor cached
  std::list<BlockId> evictable_;  // cached without owners, longest unused first
  std::function<void(BlockId)> evicted_;
};

}  // namespace flotilla
