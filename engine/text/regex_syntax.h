// Rewrites a regular expression of a tokenizer.json, which Hugging Face gives to Oniguruma (Ruby
// syntax), into the one of PCRE2 that matches the same. The two differ in \w \s \h \v, $ and ^,
// (?m), {n}? {n}+ {,n}, nested classes and &&, scripts. Not reproduced: case-insensitive matching
// of one character against several ("ss" and ß); code points above Unicode 14.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace flotilla::text {

// Character sets as bodies of a PCRE2 class. White_Space is the same everywhere; "word" is not.
inline constexpr std::string_view kWhiteSpaceClass =
    "\\x09-\\x0d "
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
inline constexpr std::string_view kRustWordClass =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}";

// Fails, naming the construct, for what has no counterpart. The result may still be refused by
// PCRE2.
StatusOr<std::string> oniguruma_to_pcre2(std::string_view pattern);

}  // namespace flotilla::text
