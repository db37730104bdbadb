#include "engine/text/pre_tokenizer.h"

#include <utility>

#include "common/utf8.h"
#include "engine/text/regex_syntax.h"
#include "engine/text/unicode.h"

namespace flotilla::text {
namespace {

// A stretch between or at matches. Matches and gaps together cover a piece.
struct Part {
  Span span;
  bool is_match;
};

// Cuts one piece along `matches` (relative to the piece, which starts at `base`) and appends what
// is not empty.
class Cutter {
 public:
  Cutter(SplitBehavior behavior, bool invert) : behavior_(behavior), invert_(invert) {}

  void cut(uint32_t base, uint32_t size, const std::vector<Span>& matches, std::vector<Span>* out) {
    parts_.clear();
    uint32_t covered = 0;
    for (const Span match : matches) {
      if (match.begin > covered) parts_.push_back({{covered, match.begin}, invert_});
      parts_.push_back({match, !invert_});
      covered = match.end;
    }
    if (covered < size) parts_.push_back({{covered, size}, invert_});
    merge();
    for (const Part& part : parts_) {
      const bool removed = behavior_ == SplitBehavior::kRemoved && part.is_match;
      if (!removed && part.span.begin < part.span.end) {
        out->push_back({base + part.span.begin, base + part.span.end});
      }
    }
  }

 private:
  void merge() {
    if (behavior_ == SplitBehavior::kRemoved || behavior_ == SplitBehavior::kIsolated) return;
    merged_.clear();
    bool previous_match = false;
    if (behavior_ == SplitBehavior::kMergedWithNext) {
      for (size_t i = parts_.size(); i-- > 0;) {
        const Part& part = parts_[i];
        if (part.is_match && !previous_match && !merged_.empty()) {
          merged_.back().span.begin = part.span.begin;
        } else {
          merged_.push_back(part);
        }
        previous_match = part.is_match;
      }
      parts_.assign(merged_.rbegin(), merged_.rend());
      return;
    }
    for (const Part& part : parts_) {
      const bool join = behavior_ == SplitBehavior::kContiguous ? part.is_match == previous_match
                                                                : part.is_match && !previous_match;
      if (join && !merged_.empty()) {
        merged_.back().span.end = part.span.end;
      } else {
        merged_.push_back(part);
      }
      previous_match = part.is_match;
    }
    parts_.swap(merged_);
  }

  SplitBehavior behavior_;
  bool invert_;
  std::vector<Part> parts_, merged_;
};

// A step that cuts each piece where `find` finds something.
template <typename Find>
Status cut_pieces(Pieces* pieces, SplitBehavior behavior, bool invert, Find find) {
  Cutter cutter(behavior, invert);
  std::vector<Span> cut;
  cut.reserve(pieces->spans.size());
  std::vector<Span> matches;
  for (size_t i = 0; i < pieces->spans.size(); ++i) {
    matches.clear();
    const std::string_view piece = (*pieces)[i];
    FLOTILLA_RETURN_IF_ERROR(find(piece, &matches));
    const Span span = pieces->spans[i];
    if (matches.empty() && !invert) {
      cut.push_back(span);
    } else {
      cutter.cut(span.begin, span.end - span.begin, matches, &cut);
    }
  }
  if (!pieces->spans.empty() && (cut.empty() || cut[0].begin != pieces->spans[0].begin)) {
    pieces->at_start = false;
  }
  pieces->spans.swap(cut);
  return ok_status();
}

class Split final : public PreTokenizerStep {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  Status apply(Pieces* pieces) const override {
    return cut_pieces(pieces, behavior_, invert_, [this](std::string_view piece, auto* matches) {
      return pattern_.find_all(piece, matches);
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class SplitCharacters final : public PreTokenizerStep {
 public:
  SplitCharacters(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {}
  Status apply(Pieces* pieces) const override {
    return cut_pieces(pieces, behavior_, false, [this](std::string_view piece, auto* matches) {
      for (size_t pos = 0; pos < piece.size();) {
        const auto begin = static_cast<uint32_t>(pos);
        if (is_delimiter_(utf8_decode(piece, &pos))) {
          matches->push_back({begin, static_cast<uint32_t>(pos)});
        }
      }
      return ok_status();
    });
  }

 private:
  bool (*is_delimiter_)(char32_t);
  SplitBehavior behavior_;
};

// Copies the pieces into a new text, each through `write(index, piece, out)`.
template <typename Write>
void rewrite_pieces(Pieces* pieces, Write write) {
  std::string text;
  text.reserve(pieces->text.size() + pieces->text.size() / 4 + 16);
  for (size_t i = 0; i < pieces->spans.size(); ++i) {
    const auto begin = static_cast<uint32_t>(text.size());
    write(i, (*pieces)[i], &text);
    pieces->spans[i] = {begin, static_cast<uint32_t>(text.size())};
  }
  pieces->text = std::move(text);
}

class Metaspace final : public PreTokenizerStep {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)),
        scheme_(scheme),
        split_(split),
        pattern_(Pattern::literal(replacement_)) {}

  Status apply(Pieces* pieces) const override {
    rewrite_pieces(pieces, [&](size_t i, std::string_view piece, std::string* out) {
      const bool wanted = scheme_ == PrependScheme::kAlways ||
                          (scheme_ == PrependScheme::kFirst && i == 0 && pieces->at_start);
      if (wanted && !piece.starts_with(' ') && !piece.starts_with(replacement_)) {
        *out += replacement_;
      }
      for (const char c : piece) {
        if (c == ' ') {
          *out += replacement_;
        } else {
          *out += c;
        }
      }
    });
    if (!split_) return ok_status();
    return cut_pieces(pieces,
                      SplitBehavior::kMergedWithNext,
                      false,
                      [this](std::string_view piece, auto* matches) {
                        return pattern_.find_all(piece, matches);
                      });
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
  Pattern pattern_;
};

class ByteLevel final : public PreTokenizerStep {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, bool map_bytes)
      : add_prefix_space_(add_prefix_space), map_bytes_(map_bytes) {
    if (!use_regex) return;
    auto gpt2 = Pattern::regex(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
    regex_ = std::make_unique<Pattern>(std::move(*gpt2));
  }

  Status apply(Pieces* pieces) const override {
    if (add_prefix_space_) {
      rewrite_pieces(pieces, [](size_t, std::string_view piece, std::string* out) {
        if (!piece.starts_with(' ')) *out += ' ';
        *out += piece;
      });
    }
    if (regex_ != nullptr) {
      FLOTILLA_RETURN_IF_ERROR(cut_pieces(
          pieces, SplitBehavior::kIsolated, false, [this](std::string_view piece, auto* matches) {
            return regex_->find_all(piece, matches);
          }));
    }
    if (map_bytes_) {
      rewrite_pieces(pieces, [](size_t, std::string_view piece, std::string* out) {
        for (const char c : piece) utf8_append(out, byte_to_char(static_cast<unsigned char>(c)));
      });
    }
    return ok_status();
  }

 private:
  bool add_prefix_space_;
  bool map_bytes_;
  std::unique_ptr<Pattern> regex_;  // null: the pieces stay whole
};

}  // namespace

std::unique_ptr<PreTokenizerStep> make_split(Pattern pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<Split>(std::move(pattern), behavior, invert);
}

std::unique_ptr<PreTokenizerStep> make_whitespace() {
  const std::string word(kRustWordClass);
  const std::string regex = "[" + word + "]+|[^" + word + std::string(kWhiteSpaceClass) + "]+";
  return make_split(Pattern::pcre2(regex), SplitBehavior::kRemoved, true);
}

std::unique_ptr<PreTokenizerStep> make_whitespace_split() {
  return std::make_unique<SplitCharacters>(is_white_space, SplitBehavior::kRemoved);
}

std::unique_ptr<PreTokenizerStep> make_punctuation(SplitBehavior behavior) {
  return std::make_unique<SplitCharacters>(is_punctuation, behavior);
}

std::unique_ptr<PreTokenizerStep> make_digits(bool individual) {
  return std::make_unique<SplitCharacters>(
      is_numeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

std::unique_ptr<PreTokenizerStep> make_metaspace(std::string replacement,
                                                 PrependScheme scheme,
                                                 bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}

std::unique_ptr<PreTokenizerStep> make_byte_level(bool add_prefix_space,
                                                  bool use_regex,
                                                  bool map_bytes) {
  return std::make_unique<ByteLevel>(add_prefix_space, use_regex, map_bytes);
}

StatusOr<Pieces> pre_tokenize(const PreTokenizer& steps, std::string text, bool at_start) {
  Pieces pieces;
  pieces.at_start = at_start;
  if (!text.empty()) pieces.spans.push_back({0, static_cast<uint32_t>(text.size())});
  pieces.text = std::move(text);
  for (const auto& step : steps) {
    FLOTILLA_RETURN_IF_ERROR(step->apply(&pieces));
    if (pieces.text.size() > UINT32_MAX / 2) {
      return invalid_argument("the text has more than 2 GiB on its way to the tokenizer");
    }
  }
  return pieces;
}

}  // namespace flotilla::text
