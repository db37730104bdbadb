#include "common/utf8.h"

#include <doctest/doctest.h>

using namespace flotilla;

TEST_CASE("Utf8.RefusesOverlongSurrogatesAndOutOfRange") {
  CHECK(is_valid_utf8("plain é € 😀"));
  CHECK_FALSE(is_valid_utf8("\xc0\x80"));          // overlong NUL
  CHECK_FALSE(is_valid_utf8("\xe0\x80\x80"));      // overlong
  CHECK_FALSE(is_valid_utf8("\xed\xa0\x80"));      // U+D800
  CHECK_FALSE(is_valid_utf8("\xf4\x90\x80\x80"));  // U+110000
  CHECK_FALSE(is_valid_utf8("\x80"));
  CHECK_FALSE(is_valid_utf8("\xe2\x82"));
}

TEST_CASE("Utf8.CompletePrefixHoldsBackOnlyWhatMoreBytesCouldComplete") {
  CHECK(utf8_complete_prefix("abc") == 3);
  CHECK(utf8_complete_prefix("a\xe2\x82") == 1);
  CHECK(utf8_complete_prefix("a\xf0\x9f\x98") == 1);
  CHECK(utf8_complete_prefix("a\xf0\x9f\x98\x80") == 5);
  CHECK(utf8_complete_prefix("a\x80\x80") == 3);  // nothing leads these: they are complete garbage
  CHECK(utf8_complete_prefix("a\xe0\x80") == 3);  // can never become valid
  CHECK(utf8_complete_prefix("a\xff") == 2);
}

TEST_CASE("Utf8.DecodeAndAppendAreInverse") {
  for (const char32_t c : {U'a', U'\u00e9', U'\u20ac', U'\U0001F600', U'\U0010FFFF'}) {
    std::string text;
    utf8_append(&text, c);
    size_t pos = 0;
    CHECK(utf8_decode(text, &pos) == c);
    CHECK(pos == text.size());
    CHECK(utf8_char_length(text) == text.size());
  }
}
