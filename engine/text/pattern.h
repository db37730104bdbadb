// What a tokenizer.json calls a pattern: a literal string or a regular expression, searched for
// from left to right.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flotilla::text {

// Bytes [begin, end) of a text.
struct Span {
  uint32_t begin, end;
  bool operator==(const Span&) const = default;
};

// Threads: immutable once made, and used by many at once.
class Pattern {
 public:
  static Pattern literal(std::string text);
  // `regex` in Oniguruma's syntax (Ruby), at most 64 KiB.
  static StatusOr<Pattern> regex(std::string_view regex);
  // `regex` in PCRE2's own syntax; ours, so it must compile.
  static Pattern pcre2(std::string_view regex);

  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  // Appends the matches in `text`, which must be valid UTF-8 below 4 GiB, in order. An empty match
  // directly behind another is passed over. Fails if the regex needs more steps or memory than
  // bounded (the text or the pattern is hostile).
  Status find_all(std::string_view text, std::vector<Span>* matches) const;

 private:
  struct Compiled;
  Pattern(std::string literal, std::unique_ptr<Compiled> compiled);
  static StatusOr<Pattern> compile(const std::string& pcre2);

  std::string literal_;
  std::unique_ptr<Compiled> compiled_;  // null for a literal
};

}  // namespace flotilla::text
