// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace flotilla {

// Length in bytes of the valid character at the front of `text` (1 … 4), or 0 if there is none.
size_t utf8_char_length(std::string_view text);

bool is_valid_utf8(std::string_view text);

// Length of the longest prefix of `text` that does not end inside a character which more bytes
// could complete. Invalid bytes count as complete. "a\xe2\x82" → 1.
size_t utf8_complete_prefix(std::string_view text);

// The code point at *pos, and *pos moved behind it. `text` must be valid UTF-8 and *pos <
// text.size().
char32_t utf8_decode(std::string_view text, size_t* pos);

void utf8_append(std::string* out, char32_t code_point);

}  // namespace flotilla
