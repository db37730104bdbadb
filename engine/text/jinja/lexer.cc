#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "common/utf8.h"
#include "engine/text/jinja/values.h"

namespace flotilla::text::jinja {
namespace {

constexpr size_t kNone = std::string::npos;
constexpr size_t kMaxBrackets = 100;
// Longer ones first.
constexpr std::array<std::string_view, 26> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_name_char(char c, bool first) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80 || (!first && c >= '0' && c <= '9');
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// \r\n and \r become \n; one line break at the end goes.
std::string with_plain_line_breaks(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

size_t skip_spaces(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    size_t next = pos;
    if (!is_python_space(utf8_decode(text, &next))) break;
    pos = next;
  }
  return pos;
}

std::string_view without_spaces_at_end(std::string_view text) {
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t pos = start;
    if (!is_python_space(utf8_decode(text, &pos))) break;
    text = text.substr(0, start);
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : in_(std::move(source)) {}

  StatusOr<std::vector<Token>> run() {
    while (pos_ < in_.size()) {
      const size_t begin = next_tag();
      const std::string_view text = std::string_view(in_).substr(pos_, begin - pos_);
      if (begin == in_.size()) {
        add_data(text);
        pos_ = begin;
        break;
      }
      const char kind = in_[begin + 1];
      const char sign = begin + 2 < in_.size() ? in_[begin + 2] : '\0';
      add_data(before_tag(text, begin, kind, sign));
      count_lines(pos_, begin);
      pos_ = begin + 2;
      if (sign == '-' || (sign == '+' && kind != '{')) ++pos_;
      FLOTILLA_RETURN_IF_ERROR(tag(kind));
    }
    tokens_.push_back({Token::Kind::kEnd, "", line_});
    return std::move(tokens_);
  }

 private:
  Status error(std::string_view message) const {
    return invalid_argument("line " + std::to_string(line_) + ": " + std::string(message));
  }
  bool at(std::string_view text) const {
    return std::string_view(in_).substr(pos_).starts_with(text);
  }
  void count_lines(size_t begin, size_t end) {
    line_ += static_cast<int>(std::count(in_.begin() + static_cast<std::ptrdiff_t>(begin),
                                         in_.begin() + static_cast<std::ptrdiff_t>(end),
                                         '\n'));
  }
  void add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }
  void add_data(std::string_view text) {
    if (!text.empty()) add(Token::Kind::kData, std::string(text));
  }

  size_t next_tag() const {
    for (size_t i = in_.find('{', pos_); i != kNone; i = in_.find('{', i + 1)) {
      if (i + 1 < in_.size() && (in_[i + 1] == '{' || in_[i + 1] == '%' || in_[i + 1] == '#')) {
        return i;
      }
    }
    return in_.size();
  }

  // The text in front of a tag: "-" takes all white space, lstrip_blocks the blanks of a line that
  // begins with a block.
  std::string_view before_tag(std::string_view text, size_t begin, char kind, char sign) const {
    if (sign == '-') return without_spaces_at_end(text);
    if (kind == '{' || sign == '+') return text;
    const size_t line_break = text.rfind('\n');
    const size_t line_begin = line_break == kNone ? 0 : line_break + 1;
    const bool starts_line = line_begin > 0 || at_line_start(begin - text.size());
    if (starts_line && skip_spaces(text, line_begin) == text.size())
      return text.substr(0, line_begin);
    return text;
  }
  bool at_line_start(size_t pos) const { return pos == 0 || in_[pos - 1] == '\n'; }

  Status tag(char kind) {
    if (kind == '#') return comment();
    if (kind == '%') {
      const size_t name = skip_spaces(in_, pos_);
      if (std::string_view(in_).substr(name).starts_with("raw")) {
        const size_t end = skip_spaces(in_, name + 3);
        if (std::string_view(in_).substr(end).starts_with("%}") ||
            std::string_view(in_).substr(end).starts_with("-%}")) {
          pos_ = end;
          return raw();
        }
      }
      add(Token::Kind::kBlockBegin, "");
      return expression("%}", Token::Kind::kBlockEnd);
    }
    add(Token::Kind::kVariableBegin, "");
    return expression("}}", Token::Kind::kVariableEnd);
  }

  // Behind a tag of `size` characters: "-" takes all white space, trim_blocks one line break.
  void behind_tag(bool minus, bool plus, bool is_variable) {
    const size_t begin = pos_;
    if (minus) {
      pos_ = skip_spaces(in_, pos_);
    } else if (!plus && !is_variable && pos_ < in_.size() && in_[pos_] == '\n') {
      ++pos_;
    }
    count_lines(begin, pos_);
  }

  Status comment() {
    const size_t end = in_.find("#}", pos_);
    if (end == kNone) return error("a comment has no closing '#}'");
    const bool minus = end > pos_ && in_[end - 1] == '-', plus = end > pos_ && in_[end - 1] == '+';
    count_lines(pos_, end);
    pos_ = end + 2;
    behind_tag(minus, plus, false);
    return ok_status();
  }

  // At the "%}" or "-%}" of {% raw %}.
  Status raw() {
    if (at("-")) {
      pos_ += 3;
      behind_tag(true, false, false);
    } else {
      pos_ += 2;
    }
    const size_t begin = pos_;
    for (size_t i = in_.find("{%", pos_); i != kNone; i = in_.find("{%", i + 1)) {
      size_t name = i + 2;
      const char sign = name < in_.size() ? in_[name] : '\0';
      if (sign == '-' || sign == '+') ++name;
      name = skip_spaces(in_, name);
      if (!std::string_view(in_).substr(name).starts_with("endraw")) continue;
      size_t end = skip_spaces(in_, name + 6);
      const bool minus = in_[end] == '-', plus = in_[end] == '+';
      if (minus || plus) ++end;
      if (!std::string_view(in_).substr(end).starts_with("%}")) continue;
      const std::string_view text = std::string_view(in_).substr(begin, i - begin);
      add_data(before_tag(text, i, '%', sign));
      count_lines(begin, end);
      pos_ = end + 2;
      behind_tag(minus, plus, false);
      return ok_status();
    }
    return error("{% raw %} has no {% endraw %}");
  }

  Status expression(std::string_view close, Token::Kind close_kind) {
    std::string brackets;
    while (true) {
      const size_t next = skip_spaces(in_, pos_);
      count_lines(pos_, next);
      pos_ = next;
      if (pos_ >= in_.size()) return error("a tag has no closing '" + std::string(close) + "'");
      if (brackets.empty()) {
        const bool minus = in_[pos_] == '-', plus = in_[pos_] == '+' && close == "%}";
        if (std::string_view(in_).substr(pos_ + (minus || plus ? 1 : 0)).starts_with(close)) {
          pos_ += close.size() + (minus || plus ? 1 : 0);
          add(close_kind, "");
          behind_tag(minus, plus, close == "}}");
          return ok_status();
        }
      }
      FLOTILLA_RETURN_IF_ERROR(token(&brackets));
    }
  }

  Status token(std::string* brackets) {
    const char c = in_[pos_];
    if (c == '"' || c == '\'') return string();
    if (is_digit(c)) return number();
    if (is_name_char(c, true)) {
      const size_t begin = pos_;
      while (pos_ < in_.size() && is_name_char(in_[pos_], false)) ++pos_;
      add(Token::Kind::kName, in_.substr(begin, pos_ - begin));
      return ok_status();
    }
    for (const std::string_view op : kOperators) {
      if (!at(op)) continue;
      if (op == "(" || op == "[" || op == "{") {
        if (brackets->size() >= kMaxBrackets) return error("brackets nest too deep");
        *brackets += op == "(" ? ')' : op == "[" ? ']' : '}';
      } else if (op == ")" || op == "]" || op == "}") {
        if (!brackets->ends_with(op)) return error("unexpected '" + std::string(op) + "'");
        brackets->pop_back();
      }
      add(Token::Kind::kOperator, std::string(op));
      pos_ += op.size();
      return ok_status();
    }
    return error("unexpected character '" + std::string(1, c) + "' in a tag");
  }

  Status number() {
    const size_t begin = pos_;
    const auto digits = [&] {
      while (pos_ < in_.size() && (is_digit(in_[pos_]) || in_[pos_] == '_')) ++pos_;
    };
    digits();
    bool is_float = false;
    if (pos_ + 1 < in_.size() && in_[pos_] == '.' && is_digit(in_[pos_ + 1])) {
      is_float = true;
      ++pos_;
      digits();
    }
    if (pos_ < in_.size() && (in_[pos_] == 'e' || in_[pos_] == 'E')) {
      size_t exponent = pos_ + 1;
      if (exponent < in_.size() && (in_[exponent] == '+' || in_[exponent] == '-')) ++exponent;
      if (exponent < in_.size() && is_digit(in_[exponent])) {
        is_float = true;
        pos_ = exponent;
        digits();
      }
    }
    std::string text = in_.substr(begin, pos_ - begin);
    std::erase(text, '_');
    add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, std::move(text));
    return ok_status();
  }

  // Python's escapes.
  Status string() {
    const char quote = in_[pos_++];
    const int line = line_;
    std::string value;
    while (pos_ < in_.size() && in_[pos_] != quote) {
      if (in_[pos_] == '\n') ++line_;
      if (in_[pos_] != '\\' || pos_ + 1 >= in_.size()) {
        value += in_[pos_++];
        continue;
      }
      ++pos_;
      const char c = in_[pos_++];
      switch (c) {
        case '\n':
          ++line_;
          break;
        case '\\':
        case '\'':
        case '"':
          value += c;
          break;
        case 'a':
          value += '\a';
          break;
        case 'b':
          value += '\b';
          break;
        case 'f':
          value += '\f';
          break;
        case 'n':
          value += '\n';
          break;
        case 'r':
          value += '\r';
          break;
        case 't':
          value += '\t';
          break;
        case 'v':
          value += '\v';
          break;
        case 'x':
          FLOTILLA_RETURN_IF_ERROR(numbered(2, 16, &value));
          break;
        case 'u':
          FLOTILLA_RETURN_IF_ERROR(numbered(4, 16, &value));
          break;
        case 'U':
          FLOTILLA_RETURN_IF_ERROR(numbered(8, 16, &value));
          break;
        case 'N':
          return error("the string escape \\N is not supported");
        default:
          if (c >= '0' && c <= '7') {
            --pos_;
            FLOTILLA_RETURN_IF_ERROR(numbered(3, 8, &value));
          } else {
            value += '\\';
            value += c;
          }
      }
    }
    if (pos_ >= in_.size()) return error("a string has no closing quote");
    ++pos_;
    tokens_.push_back({Token::Kind::kString, std::move(value), line});
    return ok_status();
  }

  Status numbered(int max_digits, int base, std::string* value) {
    uint32_t c = 0;
    int digits = 0;
    for (; digits < max_digits && pos_ < in_.size(); ++digits, ++pos_) {
      const char d = in_[pos_];
      const int v = is_digit(d)            ? d - '0'
                    : d >= 'a' && d <= 'f' ? d - 'a' + 10
                    : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                           : 99;
      if (v >= base) break;
      c = c * static_cast<uint32_t>(base) + static_cast<uint32_t>(v);
    }
    if ((base == 16 && digits < max_digits) || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) {
      return error("a string has a wrong \\x, \\u or \\U escape");
    }
    utf8_append(value, c);
    return ok_status();
  }

  std::string in_;
  size_t pos_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

StatusOr<std::vector<Token>> tokenize_template(std::string_view source) {
  if (!is_valid_utf8(source)) return invalid_argument("the template is not valid UTF-8");
  return Lexer(with_plain_line_breaks(source)).run();
}

}  // namespace flotilla::text::jinja
