// Remembers the ids of short pieces: natural text repeats its words. Fixed size (4 MiB when warm),
// a new entry takes the place of an old one. Threads: any; each shard has a lock, held for the copy
// of 64 bytes.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/mutex.h"
#include "engine/request.h"

namespace flotilla::text {

class PieceCache {
 public:
  static constexpr size_t kMaxKeyBytes = 26;
  static constexpr size_t kMaxIds = 9;

  // Appends the ids of the piece and returns true if they are known. `hash` is hash_of(piece).
  bool lookup(std::string_view piece, uint64_t hash, std::vector<TokenId>* out) const;
  // Does nothing if the piece or its ids do not fit an entry.
  void insert(std::string_view piece, uint64_t hash, std::span<const TokenId> ids) const;

  // piece.size() ≤ kMaxKeyBytes.
  static uint64_t hash_of(std::string_view piece) {
    uint64_t h = piece.size() * 0x9E3779B97F4A7C15u;
    const char* at = piece.data();
    size_t left = piece.size();
    for (; left >= 8; at += 8, left -= 8) {
      uint64_t word;
      std::memcpy(&word, at, 8);
      h = mix(h ^ word);
    }
    uint64_t word = 0;
    std::memcpy(&word, at, left);
    return mix(h ^ word);
  }

 private:
  struct Entry {
    uint8_t key_bytes = 0;  // 0: empty
    uint8_t num_ids = 0;
    char key[kMaxKeyBytes];
    TokenId ids[kMaxIds];
  };
  static_assert(sizeof(Entry) == 64);
  static constexpr size_t kShards = 16, kEntries = 4096;
  struct Shard {
    Mutex mutex;
    std::unique_ptr<Entry[]> entries GUARDED_BY(mutex);  // made at the first insert
  };

  static uint64_t mix(uint64_t h) {
    h *= 0xD6E8FEB86659FD93u;
    return h ^ (h >> 32);
  }
  static size_t shard_of(uint64_t hash) { return hash % kShards; }
  static size_t entry_of(uint64_t hash) { return hash / kShards % kEntries; }

  mutable std::array<Shard, kShards> shards_;
};

}  // namespace flotilla::text
