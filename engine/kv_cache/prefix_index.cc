#include "engine/kv_cache/prefix_index.h"

#include <algorithm>

namespace flotilla {

uint64_t PrefixIndex::chain_hash(uint64_t parent_hash, std::span<const TokenId> tokens) const {
  // FNV-1a over the tokens, seeded by the chain before them.
  uint64_t hash = parent_hash ^ 0xCBF29CE484222325u;
  for (const TokenId token : tokens) {
    hash ^= static_cast<uint32_t>(token);
    hash *= 0x100000001B3u;
  }
  return hash ^ hash >> 29;
}

BlockId PrefixIndex::child(BlockId parent, std::span<const TokenId> tokens) const {
  uint64_t parent_hash = 0;
  if (parent.value >= 0) {
    const auto it = entries_.find(parent);
    if (it == entries_.end()) return BlockId(-1);
    parent_hash = it->second.hash;
  }
  const auto [first, last] = by_hash_.equal_range(chain_hash(parent_hash, tokens));
  for (auto it = first; it != last; ++it) {
    const Entry& entry = entries_.at(it->second);
    if (entry.parent == parent && std::ranges::equal(entry.tokens, tokens)) return it->second;
  }
  return BlockId(-1);
}

std::vector<BlockId> PrefixIndex::find(std::span<const TokenId> tokens, size_t max_blocks) const {
  std::vector<BlockId> found;
  BlockId parent(-1);
  const auto size = static_cast<size_t>(block_size_);
  while (found.size() < max_blocks && (found.size() + 1) * size <= tokens.size()) {
    const BlockId next = child(parent, tokens.subspan(found.size() * size, size));
    if (next.value < 0) break;
    found.push_back(next);
    parent = next;
  }
  return found;
}

bool PrefixIndex::insert(BlockId parent, std::span<const TokenId> tokens, BlockId block) {
  if (contains(block) || child(parent, tokens).value >= 0) return false;
  Entry entry{
      .parent = parent, .tokens = {tokens.begin(), tokens.end()}, .children = {}, .hash = 0};
  uint64_t parent_hash = 0;
  if (parent.value >= 0) {
    const auto it = entries_.find(parent);
    if (it == entries_.end()) return false;
    it->second.children.push_back(block);
    parent_hash = it->second.hash;
  }
  entry.hash = chain_hash(parent_hash, tokens);
  by_hash_.emplace(entry.hash, block);
  entries_.emplace(block, std::move(entry));
  return true;
}

void PrefixIndex::erase(BlockId block, std::vector<BlockId>* orphaned) {
  const auto found = entries_.find(block);
  if (found == entries_.end()) return;
  if (found->second.parent.value >= 0) {
    if (const auto parent = entries_.find(found->second.parent); parent != entries_.end()) {
      std::erase(parent->second.children, block);
    }
  }
  std::vector<BlockId> doomed = {block};
  while (!doomed.empty()) {
    const BlockId id = doomed.back();
    doomed.pop_back();
    const auto it = entries_.find(id);
    doomed.insert(doomed.end(), it->second.children.begin(), it->second.children.end());
    const auto [first, last] = by_hash_.equal_range(it->second.hash);
    for (auto h = first; h != last; ++h) {
      if (h->second == id) {
        by_hash_.erase(h);
        break;
      }
    }
    entries_.erase(it);
    if (id != block) orphaned->push_back(id);
  }
}

}  // namespace flotilla
