// The pre-tokenizers of a tokenizer.json: steps that cut a normalised stretch into the pieces the
// model works on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "engine/text/pattern.h"

namespace flotilla::text {

// The pieces are spans of `text`, in order and not empty; bytes between them were removed.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
  bool at_start = false;  // the first piece begins where the whole input does

  std::string_view operator[](size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

// What becomes of the matches (the delimiters) when a piece is cut.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

enum class PrependScheme { kAlways, kFirst, kNever };

// Threads: immutable.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  virtual Status apply(Pieces* pieces) const = 0;
};

using PreTokenizer = std::vector<std::unique_ptr<PreTokenizerStep>>;

// `invert`: what the pattern does not match is the delimiter.
std::unique_ptr<PreTokenizerStep> make_split(Pattern pattern, SplitBehavior behavior, bool invert);
// \w+|[^\w\s]+ as Rust's regex crate has it.
std::unique_ptr<PreTokenizerStep> make_whitespace();
std::unique_ptr<PreTokenizerStep> make_whitespace_split();
std::unique_ptr<PreTokenizerStep> make_punctuation(SplitBehavior behavior);
std::unique_ptr<PreTokenizerStep> make_digits(bool individual);
// `replacement`: one character.
std::unique_ptr<PreTokenizerStep> make_metaspace(std::string replacement,
                                                 PrependScheme scheme,
                                                 bool split);
// `map_bytes`: write the pieces in the ByteLevel alphabet. Without it they stay bytes, for a model
// that looks bytes up.
std::unique_ptr<PreTokenizerStep> make_byte_level(bool add_prefix_space,
                                                  bool use_regex,
                                                  bool map_bytes);

// Cuts `text` (valid UTF-8, below 2 GiB).
StatusOr<Pieces> pre_tokenize(const PreTokenizer& steps, std::string text, bool at_start);

}  // namespace flotilla::text
