// One sequence's ids → text, piece by piece: what append() gives is never taken back and never half
// a character, and all of it together is Tokenizer::decode() of all ids. A few bytes of state; only
// a run of <0xHH> tokens of a tokenizer.json is held back whole, since one wrong byte in it changes
// all of them. Threads: one at a time.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "engine/request.h"
#include "engine/text/tokenizer.h"

namespace flotilla {

class IncrementalDecoder {
 public:
  // `tokenizer` must outlive it.
  IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  ~IncrementalDecoder();
  IncrementalDecoder(IncrementalDecoder&&) noexcept;

  // Appends to *out what these ids settle. O(1) amortised per id.
  void append(TokenId id, std::string* out);
  void append(std::span<const TokenId> ids, std::string* out);
  // No more ids: appends what was held back, U+FFFD for a character that never got its last byte.
  // Call once, at the end.
  void finish(std::string* out);

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<text::DecoderChain> chain_;
};

}  // namespace flotilla
