#include "engine/text/stop_strings.h"

#include <algorithm>
#include <utility>

namespace flotilla {
namespace {

// borders[n]: length of the longest proper prefix of s[0, n) that also ends it.
std::vector<uint32_t> borders_of(std::string_view s) {
  std::vector<uint32_t> borders(s.size() + 1, 0);
  uint32_t length = 0;
  for (size_t i = 1; i < s.size(); ++i) {
    while (length > 0 && s[i] != s[length]) length = borders[length];
    if (s[i] == s[length]) ++length;
    borders[i + 1] = length;
  }
  return borders;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stop_strings, bool include_in_output)
    : strings_(std::move(stop_strings)),
      progress_(strings_.size(), 0),
      include_in_output_(include_in_output) {
  for (const std::string& s : strings_) borders_.push_back(borders_of(s));
}

bool StopMatcher::append(std::string_view text, std::string* out) {
  for (size_t pos = 0; pos < text.size(); ++pos) {
    std::optional<size_t> longest;  // begins first, of those that end here
    for (size_t i = 0; i < strings_.size(); ++i) {
      const std::string& s = strings_[i];
      if (s.empty()) continue;
      uint32_t& n = progress_[i];
      while (n > 0 && s[n] != text[pos]) n = borders_[i][n];
      if (s[n] == text[pos]) ++n;
      if (n == s.size() && (!longest || s.size() > strings_[*longest].size())) longest = i;
    }
    if (!longest) continue;
    matched_ = longest;
    held_ += text.substr(0, pos + 1);
    const size_t stop_bytes = strings_[*longest].size();
    emit(include_in_output_ ? held_.size() : held_.size() - stop_bytes, out);
    return true;
  }
  held_ += text;
  const uint32_t kept = progress_.empty() ? 0 : *std::ranges::max_element(progress_);
  emit(held_.size() - kept, out);
  return false;
}

void StopMatcher::finish(std::string* out) { emit(held_.size(), out); }

void StopMatcher::emit(size_t count, std::string* out) {
  out->append(held_, 0, count);
  held_.erase(0, count);
  emitted_bytes_ += count;
}

}  // namespace flotilla
