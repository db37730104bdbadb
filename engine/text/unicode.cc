#include "engine/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "common/check.h"
#include "common/utf8.h"

namespace flotilla::text {
namespace {

struct Range {
  char32_t first, last;
};

// Combining or decomposing code points that the reference's Unicode 9 tables lack (98 marks, 73
// decompositions); U+11930 is the second half of U+11938.
constexpr Range kUnknownToNormalization[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x107BA}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930},
    {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x16FF0, 0x16FF1}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
};

// Marks of Unicode 14 that were none, or not assigned, in Unicode 9.
constexpr Range kLaterMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xAFA, 0xAFF},     {0xB55, 0xB55},     {0xC04, 0xC04},     {0xC3C, 0xC3C},
    {0xD00, 0xD00},     {0xD3B, 0xD3C},     {0xD81, 0xD81},     {0xEBA, 0xEBA},
    {0x1715, 0x1715},   {0x180F, 0x180F},   {0x1ABF, 0x1ACE},   {0x1CF7, 0x1CF7},
    {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0xA8FF, 0xA8FF},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x11073, 0x11074}, {0x110C2, 0x110C2}, {0x11145, 0x11146}, {0x111C9, 0x111C9},
    {0x111CE, 0x111CF}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x1182C, 0x1183A},
    {0x11930, 0x1193E}, {0x11940, 0x11940}, {0x11942, 0x11943}, {0x119D1, 0x119E0},
    {0x119E4, 0x119E4}, {0x11A01, 0x11A0A}, {0x11A33, 0x11A39}, {0x11A3B, 0x11A3E},
    {0x11A47, 0x11A47}, {0x11A51, 0x11A5B}, {0x11A8A, 0x11A99}, {0x11D31, 0x11D45},
    {0x11D47, 0x11D47}, {0x11D8A, 0x11D97}, {0x11EF3, 0x11EF6}, {0x16F4F, 0x16F4F},
    {0x16F7F, 0x16F87}, {0x16FE4, 0x16FF1}, {0x1CF00, 0x1CF46}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
};

// Punctuation of Unicode 14 that was none, or not assigned, in Unicode 8.
constexpr Range kLaterPunctuation[] = {
    {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},
    {0xC84, 0xC84},     {0x1B7D, 0x1B7E},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},
    {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x1144B, 0x1144F},
    {0x1145A, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B},
    {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46}, {0x11A9A, 0x11A9C},
    {0x11A9E, 0x11AA2}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8},
    {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2},
    {0x1E95E, 0x1E95F},
};

bool contains(std::span<const Range> ranges, char32_t c) {
  const auto it =
      std::ranges::lower_bound(ranges, c, {}, [](const Range& range) { return range.last; });
  return it != ranges.end() && c >= it->first;
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Below U+0300 nothing combines with what stands before it, and NFC leaves it alone.
bool is_nfc_without_looking(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

struct Decomposed {
  utf8proc_int32_t c;
  utf8proc_propval_t combining_class;  // 0: a starter
};

// Orders each run of marks by class and composes it with its starter if asked; appends UTF-8.
class Composer {
 public:
  Composer(bool compose, std::string* out) : compose_(compose), out_(out) {}

  void add(utf8proc_int32_t c) {
    const auto* property = utf8proc_get_property(c);
    if (property->combining_class == 0) {
      sort_marks();
      if (pending_.size() > kFlushAbove && !may_be_second_half(c, property)) emit();
    }
    pending_.push_back({c, property->combining_class});
    if (property->combining_class == 0) marks_from_ = pending_.size();
  }

  void flush() {
    sort_marks();
    emit();
  }

 private:
  static constexpr size_t kFlushAbove = 4096;

  // The only starters that compose with what stands before them are vowel signs (marks) and Hangul
  // vowels and finals.
  static bool may_be_second_half(utf8proc_int32_t c, const utf8proc_property_t* property) {
    return (property->category >= UTF8PROC_CATEGORY_MN &&
            property->category <= UTF8PROC_CATEGORY_ME) ||
           (c >= 0x1160 && c <= 0x11FF);
  }

  void sort_marks() {
    std::stable_sort(pending_.begin() + static_cast<std::ptrdiff_t>(marks_from_),
                     pending_.end(),
                     [](const Decomposed& a, const Decomposed& b) {
                       return a.combining_class < b.combining_class;
                     });
  }

  void emit() {
    buffer_.clear();
    for (const Decomposed& d : pending_) buffer_.push_back(d.c);
    pending_.clear();
    marks_from_ = 0;
    auto length = static_cast<utf8proc_ssize_t>(buffer_.size());
    if (compose_ && length > 1) {
      constexpr auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
      length = utf8proc_normalize_utf32(buffer_.data(), length, options);
      check(length >= 0, "utf8proc_normalize_utf32 refused valid code points");
    }
    for (utf8proc_ssize_t i = 0; i < length; ++i) {
      utf8_append(out_, static_cast<char32_t>(buffer_[static_cast<size_t>(i)]));
    }
  }

  const bool compose_;
  std::string* out_;
  std::vector<Decomposed> pending_;
  std::vector<utf8proc_int32_t> buffer_;
  size_t marks_from_ = 0;  // behind the last starter
};

struct ByteAlphabet {
  std::array<char32_t, 256> chars{};
  std::array<int16_t, 0x144> bytes{};

  constexpr ByteAlphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      chars[static_cast<size_t>(b)] = c;
      bytes[c] = static_cast<int16_t>(b);
    }
  }
};
constexpr ByteAlphabet kByteAlphabet;

}  // namespace

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
           (c >= 0x7B && c <= 0x7E);
  }
  if (c == 0x166D || c == 0x111C9) return true;  // were Po, became So and Mn
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO && !contains(kLaterPunctuation, c);
}

bool is_combining_mark(char32_t c) {
  if (c < 0x300) return false;
  if (c == 0x1CF2 || c == 0x1CF3) return true;  // were Mc, became Lo
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME && !contains(kLaterMarks, c);
}

void append_lowercase(std::string* out, char32_t c) {
  if (c < 0x80) {
    *out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x130) {
    *out += "i\u0307";
  } else {
    utf8_append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

std::string normalize(NormalForm form, std::string_view text) {
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  if (is_ascii(text) || (form == NormalForm::kNfc && is_nfc_without_looking(text))) {
    return std::string(text);
  }
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  Composer composer(compose, &out);
  utf8proc_int32_t decomposed[32];  // the longest decomposition, of U+FDFA, has 18
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = utf8_decode(text, &pos);
    if (c >= 0x7FD && contains(kUnknownToNormalization, c)) {
      composer.flush();
      utf8_append(&out, c);
      continue;
    }
    int last_boundclass = 0;
    const auto n = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c), decomposed, 32, options, &last_boundclass);
    check(n >= 0 && n <= 32, "utf8proc_decompose_char refused a valid code point");
    for (utf8proc_ssize_t i = 0; i < n; ++i) composer.add(decomposed[i]);
  }
  composer.flush();
  return out;
}

char32_t byte_to_char(unsigned char byte) { return kByteAlphabet.chars[byte]; }

int char_to_byte(char32_t c) {
  return c < kByteAlphabet.bytes.size() ? kByteAlphabet.bytes[c] : -1;
}

}  // namespace flotilla::text
