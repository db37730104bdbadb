// The decoders of a tokenizer.json as a chain of streaming stages: tokens go in one by one, text
// comes out as soon as no later token can change it. decode() of a whole list is the same chain, so
// both always agree. Source of the rules: Hugging Face tokenizers, decoders/.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/status.h"
#include "engine/request.h"
#include "engine/text/pattern.h"

namespace flotilla::text {

// A stage takes tokens as fragments: text() any number of times, then end_token(). Fragments are
// whole characters. Threads: a chain belongs to one sequence.
class DecoderStage {
 public:
  virtual ~DecoderStage() = default;
  virtual void text(std::string_view fragment) = 0;
  virtual void end_token() = 0;
  // No more tokens: what was held back goes on.
  virtual void finish() = 0;
  // A whole token, at the head of a chain.
  virtual void token(TokenId, std::string_view token_text) {
    text(token_text);
    end_token();
  }
};

struct ByteLevelDecoder {};
struct ByteFallbackDecoder {};
struct FuseDecoder {};
struct BpeSuffixDecoder {  // "BPEDecoder"
  std::string suffix;
};
struct StripDecoder {
  std::string content;  // one character
  size_t start, stop;   // at most so many at each end of a token
};
struct MetaspaceDecoder {
  std::string replacement;  // one character
  bool drop_in_first;       // the first token's are dropped, others become spaces
};
struct ReplaceDecoder {
  std::shared_ptr<const Pattern> pattern;
  std::string literal;  // what the pattern looks for; empty: it is a regex
  std::string content;
};
struct JoinDecoder {};  // no decoder at all: tokens with a space between

// Text of a SentencePiece model: "▁" is a space, bytes make characters, special tokens stand for
// themselves.
struct SentencePieceDecoder {
  enum class Kind : uint8_t { kText, kByte, kControl, kUnknown, kVerbatim };
  std::vector<Kind> kinds;  // by id
  std::string unk_surface;
  bool drop_first_space;       // add_dummy_prefix: of each run between special tokens
  bool drop_all_first_spaces;  // remove_extra_whitespaces
};

using DecoderSpec = std::variant<ByteLevelDecoder,
                                 ByteFallbackDecoder,
                                 FuseDecoder,
                                 BpeSuffixDecoder,
                                 StripDecoder,
                                 MetaspaceDecoder,
                                 ReplaceDecoder,
                                 JoinDecoder,
                                 SentencePieceDecoder>;
using DecoderSpecs = std::vector<DecoderSpec>;

// Refuses, naming the stage, an order in which a stage would have to hold the whole text.
Status check_decoder(const DecoderSpecs& specs);

// A chain ready for one sequence. `specs` must outlive it.
class DecoderChain {
 public:
  explicit DecoderChain(const DecoderSpecs& specs);
  ~DecoderChain();
  DecoderChain(DecoderChain&&) noexcept;

  void token(TokenId id, std::string_view text, std::string* out);
  void finish(std::string* out);

 private:
  class Sink;
  std::unique_ptr<Sink> sink_;
  std::vector<std::unique_ptr<DecoderStage>> stages_;  // the head is the last
};

// The value of a "<0xHH>" token, or −1.
int byte_token_value(std::string_view token);

// Appends the bytes of a token in the ByteLevel alphabet; a token with any other character as it
// is.
void append_byte_level(std::string* out, std::string_view token);

// Appends `bytes` as UTF-8 with U+FFFD for each ill-formed part, as Rust's from_utf8_lossy. Unless
// `final`, an unfinished character at the end is left alone. Returns the number of bytes used.
size_t append_utf8_lossy(std::string* out, std::string_view bytes, bool final);

}  // namespace flotilla::text
