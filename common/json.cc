#include "common/json.h"

#include <cmath>

#include "common/utf8.h"

namespace flotilla {
namespace {

template <typename Float>
void append_number(std::string* out, Float number) {
  if (!std::isfinite(number)) {
    *out += "null";
    return;
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  out->append(buffer, end);
}

}  // namespace

void append_json_number(std::string* out, double number) { append_number(out, number); }
void append_json_number(std::string* out, float number) { append_number(out, number); }

void append_json_string(std::string* out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  *out += '"';
  size_t plain_from = 0;
  const auto flush = [&](size_t to) { out->append(text, plain_from, to - plain_from); };
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\') {
      ++i;
      continue;
    }
    if (c >= 0x80) {
      if (const size_t n = utf8_char_length(text.substr(i)); n > 0) {
        i += n;
        continue;
      }
    }
    flush(i);
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default:
        if (c < 0x80) {
          *out += "\\u00";
          *out += kHex[c >> 4];
          *out += kHex[c & 15];
        } else {
          *out += "\xEF\xBF\xBD";
        }
    }
    plain_from = ++i;
  }
  flush(text.size());
  *out += '"';
}

}  // namespace flotilla
