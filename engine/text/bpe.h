// Byte-pair encoding: a piece becomes its characters (or bytes), then the pair of the lowest rank
// is merged, leftmost first, until no pair of the piece is in the table. Source: Hugging Face
// tokenizers, models/bpe; ids are the same, its oddities included (bpe.cc says where).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"
#include "engine/text/piece_cache.h"
#include "engine/text/vocabulary.h"

namespace flotilla::text {

struct BpeOptions {
  std::string unk_token;  // empty: none, an unknown character vanishes
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool fuse_unk = false;
  bool byte_fallback = false;  // unknown characters become <0xHH> tokens if the vocabulary has them
  bool ignore_merges = false;  // a piece that is a token is that token
};

// Threads: immutable, except for the cache, which locks.
class Bpe {
 public:
  using Merges = std::vector<std::pair<std::string_view, std::string_view>>;

  // The strings of `merges` are read during the call only. `vocabulary` must outlive the Bpe.
  static StatusOr<std::unique_ptr<Bpe>> make(const Vocabulary& vocabulary,
                                             const Merges& merges,
                                             BpeOptions options);

  // Whether pieces may stay raw bytes when the vocabulary is written in the ByteLevel alphabet:
  // encode_bytes() can be used.
  bool can_encode_bytes() const;
  // From then on encode_bytes() works.
  void prepare_bytes();

  // Appends the ids of one piece. O(n log n) in the piece's length.
  Status encode(std::string_view piece, std::vector<TokenId>* out) const;
  // The same for a piece of raw bytes that stands for its ByteLevel form.
  void encode_bytes(std::string_view piece, std::vector<TokenId>* out) const;

 private:
  struct Merged {
    uint32_t rank;
    TokenId id;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  // (left, right) → Merged: open addressing, at most half full.
  class PairTable {
   public:
    void reserve(size_t count);
    void set(TokenId left, TokenId right, Merged merged);
    Merged find(TokenId left, TokenId right) const;

   private:
    struct Slot {
      uint64_t pair = UINT64_MAX;
      Merged merged{kNoRank, 0};
    };
    static uint64_t key(TokenId left, TokenId right) {
      return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
             static_cast<uint32_t>(right);
    }
    size_t home(uint64_t pair) const { return (pair * 0x9E3779B97F4A7C15u) >> shift_; }
    std::vector<Slot> slots_;
    int shift_ = 64;
  };

  Bpe(const Vocabulary& vocabulary, BpeOptions options)
      : vocabulary_(vocabulary), options_(std::move(options)) {}

  Status set_merges(const Merges& merges);
  void find_word_boundary();
  template <typename Encode>
  void encode_cached(std::string_view piece, std::vector<TokenId>* out, Encode encode) const;
  Status encode_word(std::string_view word, std::vector<TokenId>* out) const;
  Status symbols_of(std::string_view word, std::vector<TokenId>* symbols) const;
  void merge(std::vector<TokenId>* symbols, std::vector<TokenId>* out) const;
  void merge_short(std::vector<TokenId>* symbols) const;
  void merge_long(std::vector<TokenId>* symbols) const;

  const Vocabulary& vocabulary_;
  const BpeOptions options_;
  PairTable merges_;
  std::array<TokenId, 256> byte_ids_{};  // of a byte's ByteLevel character, −1: none
  Vocabulary bytes_;                     // tokens in raw bytes, for ignore_merges
  // "▁" if no merge reaches over the front of one that follows another character: then words are
  // encoded one by one.
  std::string word_boundary_;
  PieceCache cache_;
};

}  // namespace flotilla::text
