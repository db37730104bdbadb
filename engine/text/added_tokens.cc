#include "engine/text/added_tokens.h"

#include <algorithm>

#include "common/utf8.h"
#include "engine/text/pattern.h"
#include "engine/text/regex_syntax.h"
#include "engine/text/unicode.h"

namespace flotilla::text {
namespace {

// The last character of valid, non-empty UTF-8, and where it starts.
char32_t last_char(std::string_view text, size_t* start) {
  size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) --pos;
  *start = pos;
  return utf8_decode(text, &pos);
}

bool is_word_char(std::string_view character) {
  static const Pattern word = Pattern::pcre2("[" + std::string(kRustWordClass) + "]");
  std::vector<Span> matches;
  return word.find_all(character, &matches).ok() && !matches.empty();
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t start;
    last_char(text.substr(0, begin), &start);
    if (is_word_char(text.substr(start, begin - start))) return true;
  }
  return end < text.size() && is_word_char(text.substr(end, utf8_char_length(text.substr(end))));
}

size_t skip_spaces_left(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    size_t start;
    if (!is_white_space(last_char(text.substr(0, begin), &start))) break;
    begin = start;
  }
  return std::max(begin, limit);
}

size_t skip_spaces_right(std::string_view text, size_t end) {
  while (end < text.size()) {
    size_t next = end;
    if (!is_white_space(utf8_decode(text, &next))) break;
    end = next;
  }
  return end;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kMaxAddedTokenBytes) return;
  uint32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    auto& next = nodes_[node].next;
    const auto it =
        std::ranges::lower_bound(next, byte, {}, &std::pair<unsigned char, uint32_t>::first);
    if (it != next.end() && it->first == byte) {
      node = it->second;
      continue;
    }
    const auto made = static_cast<uint32_t>(nodes_.size());
    next.insert(it, {byte, made});
    if (node == 0) first_[byte] = made;
    nodes_.emplace_back();
    node = made;
  }
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

size_t AddedTokenMatcher::longest_at(std::string_view text, int32_t* token) const {
  uint32_t node = first_[static_cast<unsigned char>(text[0])];
  size_t found = 0;
  for (size_t length = 1; node != 0; ++length) {
    if (nodes_[node].token >= 0) {
      found = length;
      *token = nodes_[node].token;
    }
    if (length == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[length]);
    const auto& next = nodes_[node].next;
    const auto it =
        std::ranges::lower_bound(next, byte, {}, &std::pair<unsigned char, uint32_t>::first);
    node = it != next.end() && it->first == byte ? it->second : 0;
  }
  return found;
}

void AddedTokenMatcher::split(std::string_view text,
                              bool parse_special,
                              std::vector<Part>* parts) const {
  size_t covered = 0;
  for (size_t pos = 0; pos < text.size();) {
    int32_t index = -1;
    const size_t length = longest_at(text.substr(pos), &index);
    if (length == 0) {
      ++pos;
      continue;
    }
    size_t begin = pos, end = pos + length;
    pos = end;  // the search goes on behind the match, whatever becomes of it
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    if (token.special && !parse_special) continue;
    if (token.single_word && touches_word(text, begin, end)) continue;
    if (token.lstrip) begin = skip_spaces_left(text, begin, covered);
    if (token.rstrip) end = skip_spaces_right(text, end);
    if (covered < begin) parts->push_back({text.substr(covered, begin - covered), -1});
    parts->push_back({text.substr(begin, end - begin), token.id});
    covered = end;
  }
  if (covered < text.size()) parts->push_back({text.substr(covered), -1});
}

}  // namespace flotilla::text
