// Python's string functions on UTF-8, for filters and methods.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/text/jinja/run.h"

namespace flotilla::text::jinja {

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
// str.title(): letters behind a non-letter are upper.
std::string title(std::string_view text);
// `chars`: the set to strip; absent: white space.
std::string_view strip(std::string_view text,
                       std::optional<std::string_view> chars,
                       bool left,
                       bool right);
// At most `count` replacements if ≥ 0.
std::string replace(
    Run& run, std::string_view text, std::string_view from, std::string_view to, int64_t count);
std::string html_escape(std::string_view text);
// text % arguments, with %s %r %d %i %x %f %%, flags 0 and -, width and precision.
std::string printf_format(Run& run, std::string_view format, const Value& arguments);
std::string pad(
    Run& run, std::string_view text, int64_t width, std::string_view fill, bool left, bool right);

}  // namespace flotilla::text::jinja
