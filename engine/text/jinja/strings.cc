#include "engine/text/jinja/strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "common/utf8.h"
#include "engine/text/jinja/values.h"
#include "engine/text/unicode.h"

namespace flotilla::text::jinja {
namespace {

bool is_cased(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const auto k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

void append_upper(std::string* out, char32_t c) {
  if (c == 0xDF) {
    *out += "SS";
  } else {
    utf8_append(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_title(std::string* out, char32_t c) {
  if (c == 0xDF) {
    *out += "Ss";
  } else {
    utf8_append(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

}  // namespace

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) append_upper(&out, utf8_decode(text, &pos));
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) append_lowercase(&out, utf8_decode(text, &pos));
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  if (text.empty()) return out;
  size_t pos = 0;
  append_title(&out, utf8_decode(text, &pos));
  return out + to_lower(text.substr(pos));
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = utf8_decode(text, &pos);
    if (in_word) {
      append_lowercase(&out, c);
    } else {
      append_title(&out, c);
    }
    in_word = is_cased(c);
  }
  return out;
}

std::string_view strip(std::string_view text,
                       std::optional<std::string_view> chars,
                       bool left,
                       bool right) {
  std::vector<char32_t> set;
  for (size_t pos = 0; chars && pos < chars->size();) set.push_back(utf8_decode(*chars, &pos));
  const auto goes = [&](char32_t c) {
    return chars ? std::ranges::find(set, c) != set.end() : is_python_space(c);
  };
  while (left && !text.empty()) {
    size_t pos = 0;
    if (!goes(utf8_decode(text, &pos))) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t pos = start;
    if (!goes(utf8_decode(text, &pos))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string replace(
    Run& run, std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  std::string out;
  size_t kept = 0;
  const auto put = [&](size_t at) {
    run.made(at - kept + to.size());
    out += text.substr(kept, at - kept);
    out += to;
    --count;
  };
  if (from.empty()) {  // before every character and at the end
    for (size_t pos = 0; count != 0;) {
      put(pos);
      kept = pos;
      if (pos >= text.size()) break;
      pos += std::max<size_t>(1, utf8_char_length(text.substr(pos)));
    }
  } else {
    for (size_t at; count != 0 && (at = text.find(from, kept)) != std::string_view::npos;
         kept = at + from.size()) {
      put(at);
    }
  }
  out += text.substr(kept);
  run.made(text.size() - kept);
  return out;
}

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string pad(
    Run& run, std::string_view text, int64_t width, std::string_view fill, bool left, bool right) {
  const auto size = static_cast<int64_t>(count_chars(text));
  if (width <= size) return std::string(text);
  const int64_t total = width - size;
  if (total > static_cast<int64_t>(run.limits().bytes)) {
    run.fail(Failure::kLimit, "the chat template pads a text to " + std::to_string(width));
  }
  run.made(static_cast<size_t>(total) * fill.size() + text.size());
  // str.center() puts the odd one on the left only if the width is odd too.
  const int64_t on_left = left && right ? total / 2 + (total & width & 1) : left ? total : 0;
  std::string out;
  for (int64_t i = 0; i < on_left; ++i) out += fill;
  out += text;
  for (int64_t i = on_left; i < total; ++i) out += fill;
  return out;
}

std::string printf_format(Run& run, std::string_view format, const Value& arguments) {
  std::string out;
  size_t used = 0;
  const auto next = [&]() -> Value {
    if (!arguments.is_array()) {
      if (used++ > 0) run.fail("not enough arguments for format string");
      return arguments;
    }
    if (used >= arguments.size()) run.fail("not enough arguments for format string");
    return arguments.at(used++);
  };
  for (size_t pos = 0; pos < format.size();) {
    const size_t at = std::min(format.find('%', pos), format.size());
    out += format.substr(pos, at - pos);
    pos = at + 1;
    if (at == format.size()) break;
    bool minus = false, zero = false;
    for (; pos < format.size() && (format[pos] == '-' || format[pos] == '0'); ++pos) {
      (format[pos] == '-' ? minus : zero) = true;
    }
    const auto number = [&](int64_t absent) {
      int64_t value = absent;
      for (; pos < format.size() && format[pos] >= '0' && format[pos] <= '9'; ++pos) {
        value = std::min<int64_t>(1000, std::max<int64_t>(value, 0) * 10 + (format[pos] - '0'));
      }
      return value;
    };
    const int64_t width = number(0);
    int64_t precision = -1;
    if (pos < format.size() && format[pos] == '.') {
      ++pos;
      precision = number(0);
    }
    if (pos >= format.size()) run.fail("incomplete format");
    std::string text;
    switch (const char kind = format[pos++]) {
      case '%':
        text = "%";
        break;
      case 's': {
        text = to_text(run, next());
        if (precision >= 0) text = *as_string(slice(run, Value(text), 0, precision, 1));
        break;
      }
      case 'd':
      case 'i':
      case 'x': {
        const auto value = as_number(next());
        if (!value || !(*value > -9e18 && *value < 9e18))
          run.fail("%d format: a number is required");
        char buffer[32];
        std::snprintf(
            buffer, sizeof buffer, kind == 'x' ? "%llx" : "%lld", static_cast<long long>(*value));
        text = buffer;
        break;
      }
      case 'f': {
        const auto value = as_number(next());
        if (!value) run.fail("must be real number");
        text.resize(static_cast<size_t>(std::snprintf(
            nullptr, 0, "%.*f", static_cast<int>(precision < 0 ? 6 : precision), *value)));
        std::snprintf(text.data(),
                      text.size() + 1,
                      "%.*f",
                      static_cast<int>(precision < 0 ? 6 : precision),
                      *value);
        break;
      }
      default:
        run.fail(std::string("unsupported format character '") + kind + "'");
    }
    out += pad(run, text, width, zero && !minus ? "0" : " ", !minus, minus);
    run.made(text.size());
  }
  if (arguments.is_array() && used < arguments.size()) {
    run.fail("not all arguments converted during string formatting");
  }
  return out;
}

}  // namespace flotilla::text::jinja
