#include "engine/text/regex_syntax.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <utility>
#include <vector>

#include "common/utf8.h"

namespace flotilla::text {
namespace {

constexpr int kMaxClassDepth = 20;
// Superscripts and fractions of Latin-1 are word characters for Oniguruma alone.
constexpr std::string_view kOnigWordClass =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe";

// Marks that became Alphabetic, and letters that became Lowercase, after Unicode 14.
constexpr std::string_view kAlphabetic =
    "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}"
    "\\x{11081}";
constexpr std::string_view kAlphanumeric =
    "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}"
    "\\x{11081}\\p{Nd}";

struct Property {
  std::string_view name, body;
};

// Classes that are not what the property of the same name is.
constexpr Property kPosixClasses[] = {
    {"punct", "\\p{P}\\p{S}"},
    {"word", "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"},
};

// Names that PCRE2 does not have, or that mean another set there.
constexpr Property kProperties[] = {
    {"alnum", kAlphanumeric},
    {"alpha", kAlphabetic},
    {"ascii", "\\x00-\\x7f"},
    {"blank", "\\p{Zs}\\x09"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"lower", "\\p{Lowercase}\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}"},
    {"punct", "\\p{P}"},
    {"space", kWhiteSpaceClass},
    {"upper", "\\p{Uppercase}"},
    {"word", kOnigWordClass},
    {"xdigit", "0-9A-Fa-f"},
    {"letter", "\\p{L}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"punctuation", "\\p{P}"},
    {"symbol", "\\p{S}"},
    {"separator", "\\p{Z}"},
    {"other", "\\p{C}"},
};
constexpr std::string_view kCategories[] = {"l",  "lu", "ll", "lt", "lm", "lo", "m",  "mn", "mc",
                                            "me", "n",  "nd", "nl", "no", "p",  "pc", "pd", "ps",
                                            "pe", "pi", "pf", "po", "s",  "sm", "sc", "sk", "so",
                                            "z",  "zs", "zl", "zp", "c",  "cc", "cf", "co"};
constexpr std::string_view kBinaryProperties[] = {"alphabetic",
                                                  "emoji",
                                                  "emojipresentation",
                                                  "extendedpictographic",
                                                  "ideographic",
                                                  "lowercase",
                                                  "uppercase",
                                                  "whitespace",
                                                  "math",
                                                  "hexdigit",
                                                  "dash",
                                                  "diacritic",
                                                  "cased"};

// A set of characters. `body` is the inside of a PCRE2 class; `parts` are expressions that each
// match one character.
struct CharSet {
  std::string body;
  std::vector<std::string> parts;
};

std::string any_of(const CharSet& set) {
  if (set.parts.empty()) return "[" + set.body + "]";
  std::string out = "(?:";
  if (!set.body.empty()) out += "[" + set.body + "]|";
  for (size_t i = 0; i < set.parts.size(); ++i) out += (i > 0 ? "|" : "") + set.parts[i];
  return out + ")";
}

std::string none_of(const CharSet& set) {
  if (set.parts.empty()) return "[^" + set.body + "]";
  return "(?:(?!" + any_of(set) + ")(?s:.))";
}

std::string literal(char32_t c) {
  if (c < 0x80 && std::isalnum(static_cast<int>(c)) != 0)
    return std::string(1, static_cast<char>(c));
  char hex[12];
  const auto end = std::to_chars(hex, hex + sizeof hex, static_cast<uint32_t>(c), 16).ptr;
  return "\\x{" + std::string(hex, end) + "}";
}

Status unsupported(std::string_view construct) {
  return invalid_argument("regex construct '" + std::string(construct) + "' is not supported");
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  StatusOr<std::string> run() {
    while (pos_ < in_.size()) FLOTILLA_RETURN_IF_ERROR(step());
    if (groups_.size() != 1) return invalid_argument("a group of the regex has no closing ')'");
    out_.append(groups_.back().extra_closing, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start;              // where "(" stands in out_
    size_t extra_closing = 0;  // groups opened for "(?i)" until the end of this one
  };
  static constexpr size_t kNone = std::string::npos;

  bool at(std::string_view text) const { return in_.substr(pos_).starts_with(text); }

  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
  }

  Status step() {
    const char c = in_[pos_];
    switch (c) {
      case '\\':
        return escape();
      case '[': {
        ++pos_;
        auto set = char_class(0);
        if (!set.ok()) return set.status();
        atom(*set);
        return ok_status();
      }
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '*':
      case '+':
      case '?':
        return simple_quantifier();
      case '{':
        return interval();
      case '|':
      case '^':
      case '$':
        out_ += c;
        atom_ = kNone;
        ++pos_;
        return ok_status();
      default: {
        const size_t length = utf8_char_length(in_.substr(pos_));
        atom(in_.substr(pos_, length));
        pos_ += length;
        return ok_status();
      }
    }
  }

  Status open_group() {
    const size_t start = out_.size();
    if (!at("(?")) {
      out_ += '(';
      ++pos_;
      groups_.push_back({start});
      atom_ = kNone;
      return ok_status();
    }
    for (const std::string_view head : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!at(head)) continue;
      out_ += head;
      pos_ += head.size();
      groups_.push_back({start});
      atom_ = kNone;
      return ok_status();
    }
    if (at("(?#")) {
      const size_t end = in_.find(')', pos_);
      if (end == kNone) return invalid_argument("a comment of the regex has no closing ')'");
      pos_ = end + 1;
      return ok_status();
    }
    return options();
  }

  // "(?i-m:" or "(?i)", which holds to the end of the enclosing group, alternatives included.
  Status options() {
    const size_t end = in_.find_first_of(":)", pos_);
    const std::string_view flags = in_.substr(pos_ + 2, end == kNone ? kNone : end - pos_ - 2);
    if (end == kNone || flags.find_first_not_of("imx-") != kNone) {
      return unsupported(in_.substr(pos_, std::min<size_t>(4, in_.size() - pos_)));
    }
    const size_t start = out_.size();
    out_ += "(?";
    for (const char flag : flags) out_ += flag == 'm' ? 's' : flag;
    out_ += ':';
    if (in_[end] == ':') {
      groups_.push_back({start});
    } else {
      ++groups_.back().extra_closing;
    }
    pos_ = end + 1;
    atom_ = kNone;
    return ok_status();
  }

  Status close_group() {
    if (groups_.size() == 1) return invalid_argument("the regex has a ')' without '('");
    const Group group = groups_.back();
    groups_.pop_back();
    out_.append(group.extra_closing + 1, ')');
    atom_ = group.start;
    ++pos_;
    return ok_status();
  }

  Status simple_quantifier() {
    if (atom_ == kNone) return invalid_argument("a quantifier of the regex follows nothing");
    out_ += in_[pos_++];
    if (pos_ < in_.size() && (in_[pos_] == '?' || in_[pos_] == '+')) out_ += in_[pos_++];
    atom_ = kNone;
    return ok_status();
  }

  // In Ruby {,n} is {0,n}, {n}? is optional rather than lazy, and {n,m}+ repeats the whole rather
  // than being possessive.
  Status interval() {
    const size_t close = in_.find('}', pos_);
    const std::string_view inside =
        close == kNone ? std::string_view() : in_.substr(pos_ + 1, close - pos_ - 1);
    const size_t comma = inside.find(',');
    const auto digits = [](std::string_view text) {
      return text.find_first_not_of("0123456789") == kNone;
    };
    const std::string_view low = inside.substr(0, comma);
    const std::string_view high = comma == kNone ? low : inside.substr(comma + 1);
    if (inside.empty() || inside == "," || !digits(low) || !digits(high)) {
      atom("\\{");
      ++pos_;
      return ok_status();
    }
    if (atom_ == kNone) return invalid_argument("a quantifier of the regex follows nothing");
    const size_t start = atom_;
    out_ += "{" + std::string(low.empty() ? "0" : low);
    if (comma != kNone) out_ += "," + std::string(high);
    out_ += '}';
    pos_ = close + 1;
    const char next = pos_ < in_.size() ? in_[pos_] : '\0';
    if (next == '+' || (next == '?' && comma == kNone)) {
      out_.insert(start, "(?:");
      out_ += ')';
    }
    if (next == '+' || next == '?') {
      out_ += next;
      ++pos_;
    }
    atom_ = kNone;
    return ok_status();
  }

  Status escape() {
    if (pos_ + 1 >= in_.size()) return invalid_argument("the regex ends in a backslash");
    const char c = in_[pos_ + 1];
    switch (c) {
      case 'b':
      case 'B': {
        const std::string word = "[" + std::string(kOnigWordClass) + "]";
        const std::string boundary =
            "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
        out_ += c == 'b' ? boundary : "(?!" + boundary + ")";
        atom_ = kNone;
        pos_ += 2;
        return ok_status();
      }
      case 'A':
      case 'z':
      case 'Z':
      case 'G':
      case 'K':
        out_ += in_.substr(pos_, 2);
        atom_ = kNone;
        pos_ += 2;
        return ok_status();
      case 'R':
      case 'X':
        atom(in_.substr(pos_, 2));
        pos_ += 2;
        return ok_status();
      case '1':
      case '2':
      case '3':
      case '4':
      case '5':
      case '6':
      case '7':
      case '8':
      case '9':
        atom("\\g{" + std::string(1, c) + "}");
        pos_ += 2;
        return ok_status();
      default:
        break;
    }
    CharSet set;
    bool negated = false;
    auto known = set_escape(&set, &negated);
    if (!known.ok()) return known.status();
    if (*known) {
      atom(negated ? none_of(set) : any_of(set));
      return ok_status();
    }
    auto character = char_escape();
    if (!character.ok()) return character.status();
    atom(literal(*character));
    return ok_status();
  }

  // \d \w \s \h \p{…} and their negations. False, and nothing consumed, for another escape.
  StatusOr<bool> set_escape(CharSet* set, bool* negated) {
    const char c = in_[pos_ + 1];
    switch (c) {
      case 'd':
      case 'D':
        set->body = "\\p{Nd}";
        break;
      case 'w':
      case 'W':
        set->body = kOnigWordClass;
        break;
      case 's':
      case 'S':
        set->body = kWhiteSpaceClass;
        break;
      case 'h':
      case 'H':
        set->body = "0-9A-Fa-f";
        break;
      case 'p':
      case 'P':
        return property(set, negated);
      default:
        return false;
    }
    *negated = c < 'a';
    pos_ += 2;
    return true;
  }

  StatusOr<bool> property(CharSet* set, bool* negated) {
    *negated = in_[pos_ + 1] == 'P';
    const size_t close = in_.find('}', pos_);
    if (pos_ + 2 >= in_.size() || in_[pos_ + 2] != '{' || close == kNone) {
      return invalid_argument("\\p of the regex needs a name in braces");
    }
    std::string_view name = in_.substr(pos_ + 3, close - pos_ - 3);
    if (name.starts_with('^')) {
      *negated = !*negated;
      name.remove_prefix(1);
    }
    std::string key;
    for (const char c : name) {
      if (c == '_' || c == '-' || c == ' ') continue;
      if (std::isalnum(static_cast<unsigned char>(c)) == 0) {
        return unsupported("\\p{" + std::string(name) + "}");
      }
      key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    const auto own = std::ranges::find(kProperties, std::string_view(key), &Property::name);
    if (own != std::end(kProperties)) {
      set->body = own->body;
    } else if (key == "any") {
      set->body = "\\x{0}-\\x{10ffff}";
    } else if (std::ranges::find(kCategories, key) != std::end(kCategories)) {
      key[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(key[0])));
      set->body = "\\p{" + key + "}";
    } else if (std::ranges::find(kBinaryProperties, key) != std::end(kBinaryProperties)) {
      set->body = "\\p{" + key + "}";
    } else {
      set->body = "\\p{sc:" + key + "}";
    }
    pos_ = close + 1;
    return true;
  }

  // An escape that stands for one character.
  StatusOr<char32_t> char_escape() {
    const char c = in_[pos_ + 1];
    pos_ += 2;
    switch (c) {
      case 't':
        return U'\t';
      case 'n':
        return U'\n';
      case 'r':
        return U'\r';
      case 'f':
        return U'\f';
      case 'v':
        return U'\v';
      case 'a':
        return U'\a';
      case 'e':
        return char32_t{0x1B};
      case '0':
        return number(2, 8);
      case 'u':
        return number(4, 16);
      case 'x': {
        if (pos_ < in_.size() && in_[pos_] == '{') {
          ++pos_;
          auto value = number(8, 16);
          if (!value.ok()) return value;
          if (pos_ >= in_.size() || in_[pos_] != '}') return unsupported("\\x{…}");
          ++pos_;
          return value;
        }
        auto value = number(2, 16);
        if (value.ok() && *value >= 0x80) return unsupported("\\x of a single byte above 7F");
        return value;
      }
      case 'k':
      case 'g':
      case 'c':
      case 'C':
      case 'M':
      case 'N':
      case 'O':
      case 'y':
      case 'Y':
        return unsupported(std::string("\\") + c);
      default: {
        --pos_;
        return utf8_decode(in_, &pos_);
      }
    }
  }

  StatusOr<char32_t> number(size_t max_digits, int base) {
    const std::string_view digits = in_.substr(pos_, max_digits);
    uint32_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    const auto length = static_cast<size_t>(end - digits.data());
    if (error != std::errc() && base == 8) return char32_t{0};
    if (error != std::errc() || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      return invalid_argument("a character number of the regex is not valid");
    }
    pos_ += length;
    return static_cast<char32_t>(value);
  }

  // Behind "[". Returns an expression that matches one character.
  StatusOr<std::string> char_class(int depth) {
    if (depth > kMaxClassDepth) return invalid_argument("the regex nests classes too deep");
    bool negated = false;
    if (at("^")) {
      negated = true;
      ++pos_;
    }
    CharSet set;
    std::vector<std::string> intersected;
    bool first = true;
    while (true) {
      if (pos_ >= in_.size()) return invalid_argument("a class of the regex has no closing ']'");
      if (in_[pos_] == ']' && !first) break;
      if (at("&&")) {
        pos_ += 2;
        if (set.body.empty() && set.parts.empty()) return unsupported("[&&…]");
        intersected.push_back(any_of(set));
        set = {};
        continue;
      }
      FLOTILLA_RETURN_IF_ERROR(class_item(depth, &set));
      first = false;
    }
    ++pos_;
    if (set.body.empty() && set.parts.empty()) return unsupported("an empty class");
    if (intersected.empty()) return negated ? none_of(set) : any_of(set);
    std::string both = "(?:";
    for (const std::string& part : intersected) both += "(?=" + part + ")";
    both += any_of(set) + ")";
    return negated ? "(?:(?!" + both + ")(?s:.))" : both;
  }

  Status class_item(int depth, CharSet* set) {
    if (at("[:") && in_.find(":]", pos_) != kNone) return posix_class(set);
    if (at("[")) {
      ++pos_;
      auto nested = char_class(depth + 1);
      if (!nested.ok()) return nested.status();
      set->parts.push_back(std::move(*nested));
      return ok_status();
    }
    if (at("\\")) {
      if (pos_ + 1 >= in_.size()) return invalid_argument("the regex ends in a backslash");
      CharSet escaped;
      bool negated = false;
      auto known = set_escape(&escaped, &negated);
      if (!known.ok()) return known.status();
      if (*known) {
        if (negated) {
          set->parts.push_back(none_of(escaped));
        } else {
          set->body += escaped.body;
        }
        return ok_status();
      }
    }
    auto low = class_char();
    if (!low.ok()) return low.status();
    set->body += literal(*low);
    // A range, unless "-" is the last of the class or stands before a set.
    if (!at("-") || pos_ + 1 >= in_.size() || in_[pos_ + 1] == ']' || in_[pos_ + 1] == '[') {
      return ok_status();
    }
    const size_t dash = pos_++;
    if (at("\\") && pos_ + 1 < in_.size() &&
        std::string_view("dDwWsShHpP").find(in_[pos_ + 1]) != kNone) {
      pos_ = dash + 1;
      set->body += "\\-";
      return ok_status();
    }
    auto high = class_char();
    if (!high.ok()) return high.status();
    if (*high < *low) return invalid_argument("a range of the regex goes backwards");
    set->body += "-" + literal(*high);
    return ok_status();
  }

  StatusOr<char32_t> class_char() {
    if (!at("\\")) return utf8_decode(in_, &pos_);
    if (pos_ + 1 >= in_.size()) return invalid_argument("the regex ends in a backslash");
    if (in_[pos_ + 1] == 'b') {
      pos_ += 2;
      return U'\b';
    }
    return char_escape();
  }

  Status posix_class(CharSet* set) {
    const size_t close = in_.find(":]", pos_);
    std::string_view name = in_.substr(pos_ + 2, close - pos_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const auto* known = std::ranges::find(kPosixClasses, name, &Property::name);
    if (known == std::end(kPosixClasses)) {
      known = std::ranges::find(kProperties, name, &Property::name);
      if (known == std::end(kProperties)) known = nullptr;
    }
    if (known == nullptr) return unsupported("[:" + std::string(name) + ":]");
    pos_ = close + 2;
    if (negated) {
      set->parts.push_back("[^" + std::string(known->body) + "]");
    } else {
      set->body += known->body;
    }
    return ok_status();
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_ = kNone;  // where the last quantifiable thing starts in out_
  std::vector<Group> groups_{{0}};
};

}  // namespace

StatusOr<std::string> oniguruma_to_pcre2(std::string_view pattern) {
  if (!is_valid_utf8(pattern)) return invalid_argument("the regex is not valid UTF-8");
  return Translator(pattern).run();
}

}  // namespace flotilla::text
