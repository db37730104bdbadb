#include "engine/kv_cache/block_pool.h"

#include "common/check.h"

namespace flotilla {

BlockPool::BlockPool(int32_t num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  for (int32_t b = num_blocks; b-- > 0;) free_.push_back(BlockId(b));
}

std::optional<std::vector<BlockId>> BlockPool::try_allocate(int32_t n) {
  if (n > num_available()) return std::nullopt;
  std::vector<BlockId> taken;
  taken.reserve(static_cast<size_t>(n));
  while (static_cast<int32_t>(taken.size()) < n) {
    BlockId id;
    if (!free_.empty()) {
      id = free_.back();
      free_.pop_back();
    } else {
      id = evictable_.front();
      evictable_.pop_front();
      at(id).cached = false;
      if (evicted_) evicted_(id);
    }
    Block& block = at(id);
    block.owners = 1;
    ++block.generation;
    taken.push_back(id);
  }
  return taken;
}

void BlockPool::share(BlockId id) {
  Block& block = at(id);
  check(block.owners > 0 || block.cached, "only an owned or cached block can be shared");
  if (block.owners == 0) evictable_.erase(block.place);
  ++block.owners;
}

void BlockPool::release(std::span<const BlockId> ids) {
  for (size_t i = ids.size(); i-- > 0;) {
    const BlockId id = ids[i];
    Block& block = at(id);
    check(block.owners > 0, "a block was released more often than owned");
    if (--block.owners > 0) continue;
    if (block.cached) {
      block.place = evictable_.insert(evictable_.end(), id);
    } else {
      free_.push_back(id);
    }
  }
}

void BlockPool::set_cached(BlockId id, bool cached) {
  Block& block = at(id);
  if (block.cached == cached) return;
  check(block.owners > 0 || !cached, "only an owned block can become cached");
  if (!cached && block.owners == 0) {
    evictable_.erase(block.place);
    free_.push_back(id);
  }
  block.cached = cached;
}

}  // namespace flotilla
