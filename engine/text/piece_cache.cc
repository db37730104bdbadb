#include "engine/text/piece_cache.h"

#include <algorithm>

namespace flotilla::text {

bool PieceCache::lookup(std::string_view piece, uint64_t hash, std::vector<TokenId>* out) const {
  Shard& shard = shards_[shard_of(hash)];
  MutexLock lock(shard.mutex);
  if (shard.entries == nullptr) return false;
  const Entry& entry = shard.entries[entry_of(hash)];
  if (entry.key_bytes != piece.size() || piece.empty() ||
      std::memcmp(entry.key, piece.data(), piece.size()) != 0) {
    return false;
  }
  out->insert(out->end(), entry.ids, entry.ids + entry.num_ids);
  return true;
}

void PieceCache::insert(std::string_view piece, uint64_t hash, std::span<const TokenId> ids) const {
  if (piece.empty() || piece.size() > kMaxKeyBytes || ids.size() > kMaxIds) return;
  Shard& shard = shards_[shard_of(hash)];
  MutexLock lock(shard.mutex);
  if (shard.entries == nullptr) shard.entries = std::make_unique<Entry[]>(kEntries);
  Entry& entry = shard.entries[entry_of(hash)];
  entry.key_bytes = static_cast<uint8_t>(piece.size());
  entry.num_ids = static_cast<uint8_t>(ids.size());
  std::memcpy(entry.key, piece.data(), piece.size());
  std::ranges::copy(ids, entry.ids);
}

}  // namespace flotilla::text
