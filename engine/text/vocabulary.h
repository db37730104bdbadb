// Token strings and their ids, as the model and the added tokens of a tokenizer define them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/request.h"

namespace flotilla::text {

inline constexpr int64_t kMaxVocabularyIds = 4'000'000;  // ids of a tokenizer are below

// Strings by id; an id may have none. Threads: immutable once filled.
class Vocabulary {
 public:
  // A later token of the same string or id takes its place. 0 ≤ id < kMaxVocabularyIds.
  void add(std::string_view token, TokenId id);

  std::optional<TokenId> find(std::string_view token) const {
    const auto it = ids_.find(token);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }
  // nullopt for an id without a token. The view lives as long as the vocabulary.
  std::optional<std::string_view> token(TokenId id) const {
    if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return std::nullopt;
    const std::string_view text = tokens_[static_cast<size_t>(id)];
    if (text.data() == nullptr) return std::nullopt;
    return text;
  }
  // Number of distinct strings, which is how the reference counts.
  size_t size() const { return ids_.size(); }
  // One more than the largest id.
  int64_t id_limit() const { return static_cast<int64_t>(tokens_.size()); }
  void reserve(size_t count) {
    ids_.reserve(count);
    tokens_.reserve(count);
  }

 private:
  std::string_view store(std::string_view token);

  std::vector<std::unique_ptr<char[]>> blocks_;  // the strings, back to back
  size_t block_used_ = 0, block_size_ = 0;
  std::unordered_map<std::string_view, TokenId> ids_;
  std::vector<std::string_view> tokens_;
};

}  // namespace flotilla::text
