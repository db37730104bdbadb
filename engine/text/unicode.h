// Unicode as Hugging Face tokenizers see it: their tables are of several Unicode versions, and
// token ids depend on them. Sources: utf8proc's tables; differences found by comparing every code
// point assigned in Unicode 14 (unicode.cc).
#pragma once

#include <string>
#include <string_view>

namespace flotilla::text {

bool is_white_space(char32_t c);     // property White_Space
bool is_numeric(char32_t c);         // Nd, Nl, No: Rust's char::is_numeric
bool is_punctuation(char32_t c);     // ASCII punctuation and P* as of Unicode 8
bool is_combining_mark(char32_t c);  // M* as of Unicode 9

// Full lower case without context, as Rust's char::to_lowercase: İ becomes two code points.
void append_lowercase(std::string* out, char32_t c);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` must be valid UTF-8. O(n log n) for any input, however long its runs of combining marks
// are. Code points added after Unicode 9 that combine or decompose stay as they are, as in the
// crate unicode-normalization-alignments.
std::string normalize(NormalForm form, std::string_view text);

// The ByteLevel alphabet of GPT-2: byte → code point, and back (−1 if the code point stands for no
// byte).
char32_t byte_to_char(unsigned char byte);
int char_to_byte(char32_t c);

}  // namespace flotilla::text
