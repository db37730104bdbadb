#include "engine/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <limits>
#include <queue>

#include "common/utf8.h"
#include "engine/text/unicode.h"

namespace flotilla::text {
namespace {

constexpr std::string_view kLowLine = "\u2581";  // ▁
constexpr size_t kShortPiece = 40;               // symbols up to which a scan beats a heap

// Position of the first boundary behind `from` where a "▁" follows something else, or the text's
// size.
size_t next_word(std::string_view text, size_t from, std::string_view boundary) {
  size_t pos = from;
  while (text.substr(pos).starts_with(boundary)) pos += boundary.size();
  pos = text.find(boundary, pos);
  return pos == std::string_view::npos ? text.size() : pos;
}

}  // namespace

void Bpe::PairTable::reserve(size_t count) {
  const size_t size = std::bit_ceil(std::max<size_t>(16, count * 2));
  slots_.assign(size, Slot{});
  shift_ = 64 - std::countr_zero(size);
}

void Bpe::PairTable::set(TokenId left, TokenId right, Merged merged) {
  const uint64_t pair = key(left, right);
  size_t at = home(pair);
  while (slots_[at].pair != UINT64_MAX && slots_[at].pair != pair) at = (at + 1) % slots_.size();
  slots_[at] = {pair, merged};
}

Bpe::Merged Bpe::PairTable::find(TokenId left, TokenId right) const {
  const uint64_t pair = key(left, right);
  for (size_t at = home(pair);; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].pair == pair) return slots_[at].merged;
    if (slots_[at].pair == UINT64_MAX) return {kNoRank, 0};
  }
}

StatusOr<std::unique_ptr<Bpe>> Bpe::make(const Vocabulary& vocabulary,
                                         const Merges& merges,
                                         BpeOptions options) {
  std::unique_ptr<Bpe> bpe(new Bpe(vocabulary, std::move(options)));
  FLOTILLA_RETURN_IF_ERROR(bpe->set_merges(merges));
  bpe->find_word_boundary();
  return bpe;
}

Status Bpe::set_merges(const Merges& merges) {
  merges_.reserve(merges.size());
  const size_t prefix = options_.continuing_subword_prefix.size();
  std::string joined;
  const auto missing = [](size_t rank, std::string_view token) {
    return invalid_argument("merge " + std::to_string(rank) + " makes or uses '" +
                            std::string(token.substr(0, 64)) + "', which is not in the vocabulary");
  };
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    if (right.size() < prefix) return missing(rank, right);
    joined.assign(left);
    joined += right.substr(prefix);
    const auto left_id = vocabulary_.find(left), right_id = vocabulary_.find(right),
               joined_id = vocabulary_.find(joined);
    if (!left_id) return missing(rank, left);
    if (!right_id) return missing(rank, right);
    if (!joined_id) return missing(rank, joined);
    // Of a pair that stands in the file twice the later rank counts, as in the reference.
    merges_.set(*left_id, *right_id, {static_cast<uint32_t>(rank), *joined_id});
    if (word_boundary_.empty() && joined.find(kLowLine) != std::string::npos) {
      word_boundary_ = kLowLine;
    }
    if (word_boundary_ == kLowLine && next_word(joined, 0, kLowLine) != joined.size()) {
      word_boundary_ = "none";
    }
  }
  return ok_status();
}

void Bpe::find_word_boundary() {
  if (word_boundary_ != kLowLine || !vocabulary_.find(kLowLine) || options_.ignore_merges ||
      !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty()) {
    word_boundary_.clear();
  }
}

bool Bpe::can_encode_bytes() const {
  return options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty() &&
         !options_.byte_fallback && options_.unk_token.empty();
}

void Bpe::prepare_bytes() {
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    utf8_append(&character, byte_to_char(static_cast<unsigned char>(byte)));
    byte_ids_[static_cast<size_t>(byte)] = vocabulary_.find(character).value_or(-1);
  }
  if (!options_.ignore_merges) return;
  std::string raw;
  for (TokenId id = 0; id < vocabulary_.id_limit(); ++id) {
    const auto token = vocabulary_.token(id);
    if (!token || vocabulary_.find(*token) != id) continue;
    raw.clear();
    bool all_bytes = !token->empty();
    for (size_t pos = 0; pos < token->size() && all_bytes;) {
      const int byte = char_to_byte(utf8_decode(*token, &pos));
      all_bytes = byte >= 0;
      raw += static_cast<char>(byte);
    }
    if (all_bytes) bytes_.add(raw, id);
  }
}

template <typename Encode>
void Bpe::encode_cached(std::string_view piece, std::vector<TokenId>* out, Encode encode) const {
  if (piece.size() > PieceCache::kMaxKeyBytes) {
    encode();
    return;
  }
  const uint64_t hash = PieceCache::hash_of(piece);
  if (cache_.lookup(piece, hash, out)) return;
  const size_t before = out->size();
  encode();
  cache_.insert(piece, hash, std::span(*out).subspan(before));
}

void Bpe::encode_bytes(std::string_view piece, std::vector<TokenId>* out) const {
  encode_cached(piece, out, [&] {
    if (options_.ignore_merges) {
      if (const auto whole = bytes_.find(piece)) {
        out->push_back(*whole);
        return;
      }
    }
    std::vector<TokenId> symbols;
    symbols.reserve(piece.size());
    for (const char c : piece) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0) symbols.push_back(id);
    }
    merge(&symbols, out);
  });
}

Status Bpe::encode(std::string_view piece, std::vector<TokenId>* out) const {
  if (word_boundary_.empty()) return encode_word(piece, out);
  for (size_t pos = 0; pos < piece.size();) {
    const size_t end = next_word(piece, pos, word_boundary_);
    FLOTILLA_RETURN_IF_ERROR(encode_word(piece.substr(pos, end - pos), out));
    pos = end;
  }
  return ok_status();
}

Status Bpe::encode_word(std::string_view word, std::vector<TokenId>* out) const {
  Status status;
  encode_cached(word, out, [&] {
    if (options_.ignore_merges) {
      if (const auto whole = vocabulary_.find(word)) {
        out->push_back(*whole);
        return;
      }
    }
    std::vector<TokenId> symbols;
    symbols.reserve(word.size());
    status = symbols_of(word, &symbols);
    if (status.ok()) merge(&symbols, out);
  });
  return status;
}

Status Bpe::symbols_of(std::string_view word, std::vector<TokenId>* symbols) const {
  TokenId pending_unk = -1;
  std::string affixed;
  for (size_t pos = 0; pos < word.size();) {
    const size_t length = utf8_char_length(word.substr(pos));
    std::string_view symbol = word.substr(pos, length);
    const bool first = pos == 0, last = pos + length == word.size();
    pos += length;
    if ((!first && !options_.continuing_subword_prefix.empty()) ||
        (last && !options_.end_of_word_suffix.empty())) {
      affixed = first ? "" : options_.continuing_subword_prefix;
      affixed += symbol;
      if (last) affixed += options_.end_of_word_suffix;
      symbol = affixed;
    }
    if (const auto id = vocabulary_.find(symbol)) {
      if (pending_unk >= 0) symbols->push_back(pending_unk);
      pending_unk = -1;
      symbols->push_back(*id);
      continue;
    }
    if (options_.byte_fallback) {
      const size_t before = symbols->size();
      for (const char c : symbol) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned char>(c));
        const auto id = vocabulary_.find(name);
        if (!id) {
          symbols->resize(before);
          break;
        }
        symbols->push_back(*id);
      }
      // A pending unk stays behind these bytes: the reference does not flush it here.
      if (symbols->size() > before) continue;
    }
    if (options_.unk_token.empty()) continue;
    const auto unk = vocabulary_.find(options_.unk_token);
    if (!unk) {
      return invalid_argument(
          "the text has a character outside of the vocabulary, and unk_token '" +
          options_.unk_token + "' is not in the vocabulary either");
    }
    if (pending_unk >= 0 && !options_.fuse_unk) symbols->push_back(pending_unk);
    pending_unk = *unk;
  }
  if (pending_unk >= 0) symbols->push_back(pending_unk);
  return ok_status();
}

void Bpe::merge(std::vector<TokenId>* symbols, std::vector<TokenId>* out) const {
  if (symbols->size() <= kShortPiece) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
  out->insert(out->end(), symbols->begin(), symbols->end());
}

void Bpe::merge_short(std::vector<TokenId>* symbols) const {
  size_t n = symbols->size();
  if (n < 2) return;
  TokenId* const id = symbols->data();
  std::array<Merged, kShortPiece> pair;  // of symbols i and i + 1
  for (size_t i = 0; i + 1 < n; ++i) pair[i] = merges_.find(id[i], id[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pair[i].rank < pair[best].rank) best = i;
    }
    if (pair[best].rank == kNoRank) break;
    id[best] = pair[best].id;
    std::copy(id + best + 2, id + n, id + best + 1);
    std::copy(pair.begin() + static_cast<std::ptrdiff_t>(best) + 1,
              pair.begin() + static_cast<std::ptrdiff_t>(n) - 1,
              pair.begin() + static_cast<std::ptrdiff_t>(best));
    --n;
    if (best > 0) pair[best - 1] = merges_.find(id[best - 1], id[best]);
    if (best + 1 < n) pair[best] = merges_.find(id[best], id[best + 1]);
  }
  symbols->resize(n);
}

void Bpe::merge_long(std::vector<TokenId>* symbols) const {
  const size_t n = symbols->size();
  constexpr uint32_t kEnd = UINT32_MAX;
  constexpr TokenId kGone = -1;
  std::vector<uint32_t> next(n), previous(n);
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1 < n ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
  }
  // rank and position of a pair in one number, smallest first. An entry whose pair has changed
  // meanwhile has another rank.
  std::vector<uint64_t> entries;
  entries.reserve(n);
  const auto entry = [](uint32_t rank, uint32_t at) { return uint64_t{rank} << 32 | at; };
  for (uint32_t i = 0; i + 1 < n; ++i) {
    const Merged merged = merges_.find((*symbols)[i], (*symbols)[i + 1]);
    if (merged.rank != kNoRank) entries.push_back(entry(merged.rank, i));
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue(std::greater<>(),
                                                                             std::move(entries));
  const auto push = [&](uint32_t left, uint32_t right) {
    const Merged merged = merges_.find((*symbols)[left], (*symbols)[right]);
    if (merged.rank != kNoRank) queue.push(entry(merged.rank, left));
  };
  while (!queue.empty()) {
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    const auto at = static_cast<uint32_t>(queue.top());
    queue.pop();
    if ((*symbols)[at] == kGone || next[at] == kEnd) continue;
    const uint32_t right = next[at];
    const Merged merged = merges_.find((*symbols)[at], (*symbols)[right]);
    if (merged.rank != rank) continue;
    (*symbols)[at] = merged.id;
    (*symbols)[right] = kGone;
    next[at] = next[right];
    if (next[at] != kEnd) previous[next[at]] = at;
    if (previous[at] != kEnd) push(previous[at], at);
    if (next[at] != kEnd) push(at, next[at]);
  }
  std::erase(*symbols, kGone);
}

}  // namespace flotilla::text
