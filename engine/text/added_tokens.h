// Finds added tokens in a text before the model sees it: leftmost first, longest at a place.
// Source: Hugging Face tokenizers, added_vocabulary.rs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"

namespace flotilla::text {

struct AddedToken {
  std::string content;
  TokenId id = -1;
  bool single_word = false;  // only where it touches no word character
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;
  bool normalized = true;  // looked for in the normalised text, in its normalised form
  bool special = false;    // left out by a decode that skips special tokens
};

inline constexpr size_t kMaxAddedTokenBytes = 1024;

// Threads: immutable once filled.
class AddedTokenMatcher {
 public:
  // A stretch of the text: a token's (id ≥ 0), or what lies between (−1).
  struct Part {
    std::string_view text;
    TokenId id;
  };

  // `pattern` is what is looked for, at most kMaxAddedTokenBytes; empty ones are never found.
  void add(const AddedToken& token, std::string_view pattern);
  bool empty() const { return tokens_.empty(); }

  // Cuts the text. Special tokens stay text unless `parse_special`. O(n · longest token).
  void split(std::string_view text, bool parse_special, std::vector<Part>* parts) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> next;  // sorted by byte
    int32_t token = -1;                                    // index into tokens_
  };

  // Length of the longest token at the front of `text`, its index in *token; 0 if there is none.
  size_t longest_at(std::string_view text, int32_t* token) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};
  std::array<uint32_t, 256> first_{};  // node of a first byte, 0: no token begins so
};

}  // namespace flotilla::text
