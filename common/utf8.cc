#include "common/utf8.h"

namespace flotilla {
namespace {

bool continuation(unsigned char c) { return (c & 0xC0) == 0x80; }

// How many bytes the lead byte announces, 0 if it can lead nothing; *low and *high bound the second
// byte.
size_t lead(unsigned char c, unsigned char* low, unsigned char* high) {
  *low = 0x80;
  *high = 0xBF;
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c <= 0xDF) return 2;
  if (c >= 0xE0 && c <= 0xEF) {
    if (c == 0xE0) *low = 0xA0;
    if (c == 0xED) *high = 0x9F;
    return 3;
  }
  if (c >= 0xF0 && c <= 0xF4) {
    if (c == 0xF0) *low = 0x90;
    if (c == 0xF4) *high = 0x8F;
    return 4;
  }
  return 0;
}

}  // namespace

size_t utf8_char_length(std::string_view text) {
  if (text.empty()) return 0;
  unsigned char low, high;
  const size_t n = lead(static_cast<unsigned char>(text[0]), &low, &high);
  if (n < 2) return n;
  if (text.size() < n) return 0;
  const auto second = static_cast<unsigned char>(text[1]);
  if (second < low || second > high) return 0;
  for (size_t i = 2; i < n; ++i) {
    if (!continuation(static_cast<unsigned char>(text[i]))) return 0;
  }
  return n;
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t n = utf8_char_length(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

size_t utf8_complete_prefix(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const size_t start = text.size() - back;
    unsigned char low, high;
    const auto c = static_cast<unsigned char>(text[start]);
    if (continuation(c)) continue;
    const size_t n = lead(c, &low, &high);
    if (n <= back) return text.size();
    if (back >= 2) {
      const auto second = static_cast<unsigned char>(text[start + 1]);
      if (second < low || second > high) return text.size();
    }
    return start;
  }
  return text.size();
}

char32_t utf8_decode(std::string_view text, size_t* pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[*pos + i]); };
  const unsigned char c = byte(0);
  char32_t code_point;
  size_t n;
  if (c < 0x80) {
    code_point = c;
    n = 1;
  } else if (c < 0xE0) {
    code_point = (c & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
    n = 2;
  } else if (c < 0xF0) {
    code_point = (c & 0x0Fu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
    n = 3;
  } else {
    code_point =
        (c & 0x07u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu);
    n = 4;
  }
  *pos += n;
  return code_point;
}

void utf8_append(std::string* out, char32_t c) {
  if (c < 0x80) {
    *out += static_cast<char>(c);
  } else if (c < 0x800) {
    *out += static_cast<char>(0xC0 | c >> 6);
    *out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    *out += static_cast<char>(0xE0 | c >> 12);
    *out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    *out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    *out += static_cast<char>(0xF0 | c >> 18);
    *out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    *out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    *out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

}  // namespace flotilla
