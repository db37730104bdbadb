#include "engine/text/vocabulary.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"

namespace flotilla::text {

void Vocabulary::add(std::string_view token, TokenId id) {
  check(id >= 0 && id < kMaxVocabularyIds, "token id out of range");
  auto it = ids_.find(token);
  if (it == ids_.end()) {
    it = ids_.emplace(store(token), id).first;
  } else {
    // The string had another id before; that id keeps its string, as in the reference's two maps.
    it->second = id;
  }
  if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[static_cast<size_t>(id)] = it->first;
}

std::string_view Vocabulary::store(std::string_view token) {
  const size_t size = token.size() + 1;  // an empty string has an address too
  if (block_used_ + size > block_size_) {
    block_size_ = std::max<size_t>(size, 256 << 10);
    blocks_.push_back(std::make_unique<char[]>(block_size_));
    block_used_ = 0;
  }
  char* at = blocks_.back().get() + block_used_;
  std::memcpy(at, token.data(), token.size());
  block_used_ += size;
  return {at, token.size()};
}

}  // namespace flotilla::text
