#include "engine/text/jinja/values.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "common/utf8.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/unicode.h"

namespace flotilla::text::jinja {
namespace {

const char* const kNamespaceMark = "\x01namespace";

bool is_function(const Value& v) { return v.is_callable(); }

void check_depth(Run& run, int depth) {
  run.step();
  if (depth > run.limits().value_depth) {
    run.fail(Failure::kLimit,
             "a value of the chat template nests more than " +
                 std::to_string(run.limits().value_depth) + " levels deep");
  }
}

std::string float_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  char buffer[40];
  const double magnitude = std::fabs(x);
  const bool plain = x == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto end = std::to_chars(buffer,
                                 buffer + sizeof buffer,
                                 x,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string out(buffer, end);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  const auto k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

void append_hex(std::string* out, const char* prefix, unsigned value, int digits) {
  static constexpr char kHex[] = "0123456789abcdef";
  *out += prefix;
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) *out += kHex[value >> shift & 15];
}

// repr() of a string.
void append_quoted(std::string_view text, std::string* out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  *out += quote;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_decode(text, &pos);
    if (c == '\\' || c == static_cast<unsigned char>(quote)) {
      *out += '\\';
      *out += static_cast<char>(c);
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c == '\r') {
      *out += "\\r";
    } else if (c == '\t') {
      *out += "\\t";
    } else if (is_printable(c)) {
      out->append(text, begin, pos - begin);
    } else if (c < 0x100) {
      append_hex(out, "\\x", c, 2);
    } else if (c < 0x10000) {
      append_hex(out, "\\u", c, 4);
    } else {
      append_hex(out, "\\U", c, 8);
    }
  }
  *out += quote;
}

void append_repr(Run& run, const Value& v, std::string* out, int depth) {
  check_depth(run, depth);
  if (const std::string* text = as_string(v)) {
    append_quoted(*text, out);
    run.made(text->size());
  } else if (v.is_array()) {
    *out += '[';
    for (size_t i = 0; i < v.size(); ++i) {
      if (i > 0) *out += ", ";
      append_repr(run, v.at(i), out, depth + 1);
    }
    *out += ']';
  } else if (is_namespace(v)) {
    *out += "<Namespace>";
  } else if (is_function(v)) {
    *out += "<function>";
  } else if (v.is_object()) {
    *out += '{';
    bool first = true;
    for (const Value& key : Value(v).keys()) {
      if (!first) *out += ", ";
      first = false;
      append_repr(run, key, out, depth + 1);
      *out += ": ";
      append_repr(run, v.at(key), out, depth + 1);
    }
    *out += '}';
  } else if (v.is_boolean()) {
    *out += v.get<bool>() ? "True" : "False";
  } else if (v.is_number_integer()) {
    *out += std::to_string(v.get<int64_t>());
  } else if (v.is_number_float()) {
    *out += float_text(v.get<double>());
  } else if (is_undefined(v)) {
    *out += "Undefined";
  } else {
    *out += "None";
  }
}

void append_json_text(std::string_view text, bool ensure_ascii, std::string* out) {
  *out += '"';
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_decode(text, &pos);
    switch (c) {
      case '"':
        *out += "\\\"";
        continue;
      case '\\':
        *out += "\\\\";
        continue;
      case '\n':
        *out += "\\n";
        continue;
      case '\r':
        *out += "\\r";
        continue;
      case '\t':
        *out += "\\t";
        continue;
      case '\b':
        *out += "\\b";
        continue;
      case '\f':
        *out += "\\f";
        continue;
      default:
        break;
    }
    if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000 && c != 0x7F)) {
      append_hex(out, "\\u", c, 4);
    } else if (ensure_ascii && c >= 0x10000) {
      append_hex(out, "\\u", 0xD800 + ((c - 0x10000) >> 10), 4);
      append_hex(out, "\\u", 0xDC00 + (c & 0x3FF), 4);
    } else {
      out->append(text, begin, pos - begin);
    }
  }
  *out += '"';
}

// A JSON key is text: None → "null", True → "true".
std::string json_key(Run& run, const Value& key) {
  if (key.is_boolean()) return key.get<bool>() ? "true" : "false";
  if (is_none(key)) return "null";
  return to_text(run, key);
}

void append_json(Run& run, const Value& v, const JsonStyle& style, std::string* out, int depth) {
  check_depth(run, depth);
  const auto line = [&](int level) {
    if (!style.indent) return;
    *out += '\n';
    for (int i = 0; i < level; ++i) *out += *style.indent;
    run.made(style.indent->size() * static_cast<size_t>(level));
  };
  if (const std::string* text = as_string(v)) {
    run.made(text->size());
    append_json_text(*text, style.ensure_ascii, out);
  } else if (v.is_array()) {
    *out += '[';
    for (size_t i = 0; i < v.size(); ++i) {
      if (i > 0) *out += style.item_separator;
      line(depth + 1);
      append_json(run, v.at(i), style, out, depth + 1);
    }
    if (v.size() > 0) line(depth);
    *out += ']';
  } else if (is_dict(v)) {
    std::vector<Value> keys = Value(v).keys();
    if (style.sort_keys) {
      std::ranges::stable_sort(keys,
                               [&](const Value& a, const Value& b) { return less(run, a, b); });
    }
    *out += '{';
    bool first = true;
    for (const Value& key : keys) {
      run.step(keys.size() / 16);
      if (!first) *out += style.item_separator;
      first = false;
      line(depth + 1);
      append_json_text(json_key(run, key), style.ensure_ascii, out);
      *out += style.key_separator;
      append_json(run, v.at(key), style, out, depth + 1);
    }
    if (!first) line(depth);
    *out += '}';
  } else if (v.is_boolean()) {
    *out += v.get<bool>() ? "true" : "false";
  } else if (v.is_number_float() && !std::isfinite(v.get<double>())) {
    const double x = v.get<double>();
    *out += std::isnan(x) ? "NaN" : x > 0 ? "Infinity" : "-Infinity";
  } else if (v.is_number()) {
    append_repr(run, v, out, depth);
  } else if (is_none(v)) {
    *out += "null";
  } else {
    run.fail("Object of type " + type_name(v) + " is not JSON serializable");
  }
}

int64_t wrapped(int64_t index, int64_t size) { return index < 0 ? index + size : index; }

// Byte offsets of the characters of `text`, and its size at the end.
std::vector<size_t> char_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) offsets.push_back(i);
  }
  offsets.push_back(text.size());
  return offsets;
}

}  // namespace

Value undefined() { return Value(json(json::value_t::discarded)); }

bool is_undefined(const Value& v) {
  return v.is_primitive() && !v.is_null() && !v.is_string() && !v.is_number() && !v.is_boolean();
}

Value make_namespace() {
  Value ns = Value::object();
  ns.set(kNamespaceMark, Value(true));
  return ns;
}

bool is_namespace(const Value& v) { return v.is_object() && v.contains(kNamespaceMark); }
bool is_dict(const Value& v) { return v.is_object() && !v.is_callable() && !is_namespace(v); }

const std::string* as_string(const Value& v) {
  return v.is_string() ? v.get<const std::string*>() : nullptr;
}

std::optional<int64_t> as_int(const Value& v) {
  if (v.is_boolean()) return v.get<bool>() ? 1 : 0;
  if (v.is_number_integer()) return v.get<int64_t>();
  return std::nullopt;
}

std::optional<double> as_number(const Value& v) {
  if (const auto i = as_int(v)) return static_cast<double>(*i);
  if (v.is_number_float()) return v.get<double>();
  return std::nullopt;
}

bool truthy(const Value& v) {
  if (const std::string* text = as_string(v)) return !text->empty();
  if (v.is_array()) return v.size() > 0;
  if (v.is_object()) return !is_dict(v) || v.size() > 0;
  if (const auto x = as_number(v)) return *x != 0;
  return false;
}

std::string type_name(const Value& v) {
  if (v.is_string()) return "str";
  if (v.is_array()) return "list";
  if (is_namespace(v)) return "Namespace";
  if (is_function(v)) return "function";
  if (v.is_object()) return "dict";
  if (v.is_boolean()) return "bool";
  if (v.is_number_integer()) return "int";
  if (v.is_number_float()) return "float";
  return is_undefined(v) ? "Undefined" : "NoneType";
}

bool equal(Run& run, const Value& a, const Value& b, int depth) {
  check_depth(run, depth);
  if (const std::string* text = as_string(a)) {
    const std::string* other = as_string(b);
    run.work_on(text->size());
    return other != nullptr && *text == *other;
  }
  const auto x = as_number(a), y = as_number(b);
  if (x || y) {
    const auto i = as_int(a), j = as_int(b);
    return x && y && (i && j ? *i == *j : *x == *y);
  }
  if (a.is_array() || b.is_array()) {
    if (!a.is_array() || !b.is_array() || a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (!equal(run, a.at(i), b.at(i), depth + 1)) return false;
    }
    return true;
  }
  if (a.is_object() || b.is_object()) {
    if (!is_dict(a) || !is_dict(b))
      return a.is_object() && b.is_object() && a.is_callable() && a == b;
    if (a.size() != b.size()) return false;
    for (const Value& key : Value(a).keys()) {
      run.step(b.size() / 16);
      if (!b.contains(key) || !equal(run, a.at(key), b.at(key), depth + 1)) return false;
    }
    return true;
  }
  return is_undefined(a) == is_undefined(b);
}

bool less(Run& run, const Value& a, const Value& b, int depth) {
  check_depth(run, depth);
  const std::string *s = as_string(a), *t = as_string(b);
  if (s != nullptr && t != nullptr) {
    run.work_on(std::min(s->size(), t->size()));
    return *s < *t;
  }
  const auto i = as_int(a), j = as_int(b);
  if (i && j) return *i < *j;
  const auto x = as_number(a), y = as_number(b);
  if (x && y) return *x < *y;
  if (a.is_array() && b.is_array()) {
    for (size_t k = 0; k < std::min(a.size(), b.size()); ++k) {
      if (!equal(run, a.at(k), b.at(k), depth + 1)) return less(run, a.at(k), b.at(k), depth + 1);
    }
    return a.size() < b.size();
  }
  run.fail("'<' not supported between instances of '" + type_name(a) + "' and '" + type_name(b) +
           "'");
}

bool contains(Run& run, const Value& container, const Value& item) {
  if (const std::string* text = as_string(container)) {
    const std::string* part = as_string(item);
    if (part == nullptr) {
      run.fail("'in <string>' requires string as left operand, not " + type_name(item));
    }
    run.work_on(text->size());
    return text->find(*part) != std::string::npos;
  }
  if (container.is_array()) {
    for (size_t i = 0; i < container.size(); ++i) {
      if (equal(run, container.at(i), item)) return true;
    }
    return false;
  }
  if (is_dict(container)) {
    run.step(container.size() / 16);
    return item.is_hashable() && !is_undefined(item) && container.contains(item);
  }
  if (is_undefined(container)) return false;
  run.fail("argument of type '" + type_name(container) + "' is not iterable");
}

void append_text(Run& run, const Value& v, std::string* out) {
  const size_t before = out->size();
  if (const std::string* text = as_string(v)) {
    *out += *text;
  } else if (!is_undefined(v)) {
    append_repr(run, v, out, 0);
  }
  run.made(out->size() - before);
}

std::string to_text(Run& run, const Value& v) {
  std::string out;
  append_text(run, v, &out);
  return out;
}

std::string_view text_of(Run& run, const Value& v, std::string* buffer) {
  if (const std::string* text = as_string(v)) return *text;
  *buffer = to_text(run, v);
  return *buffer;
}

std::string to_json(Run& run, const Value& v, const JsonStyle& style) {
  std::string out;
  append_json(run, v, style, &out, 0);
  return out;
}

std::vector<Value> items_of(Run& run, const Value& v) {
  std::vector<Value> items;
  if (const std::string* text = as_string(v)) {
    run.made(text->size() * sizeof(Value));
    for (size_t pos = 0; pos < text->size();) {
      const size_t begin = pos;
      utf8_decode(*text, &pos);
      items.emplace_back(text->substr(begin, pos - begin));
    }
  } else if (v.is_array()) {
    run.made(v.size() * sizeof(Value));
    for (size_t i = 0; i < v.size(); ++i) items.push_back(v.at(i));
  } else if (is_dict(v)) {
    run.made(v.size() * sizeof(Value));
    items = Value(v).keys();
  } else if (!is_undefined(v)) {
    run.fail("'" + type_name(v) + "' object is not iterable");
  }
  return items;
}

int64_t length_of(Run& run, const Value& v) {
  if (const std::string* text = as_string(v)) {
    run.work_on(text->size());
    return static_cast<int64_t>(count_chars(*text));
  }
  if (v.is_array() || is_dict(v)) return static_cast<int64_t>(v.size());
  if (is_undefined(v)) return 0;
  run.fail("object of type '" + type_name(v) + "' has no len()");
}

Value make_list(Run& run, std::vector<Value> items) { return run.keep(Value::array(items)); }

Value make_string(Run& run, std::string text) {
  run.made(text.size());
  return Value(std::move(text));
}

Value get_item(Run& run, const Value& object, const Value& key) {
  if (object.is_object()) {
    run.step(object.size() / 16);
    if (key.is_hashable() && !is_undefined(key) && object.contains(key)) return object.at(key);
  } else if (const auto index = as_int(key)) {
    if (object.is_array()) {
      const int64_t i = wrapped(*index, static_cast<int64_t>(object.size()));
      if (i < 0 || i >= static_cast<int64_t>(object.size())) return undefined();
      return object.at(static_cast<size_t>(i));
    }
    if (object.is_string() && *index < INT64_MAX) {
      const auto stop = *index == -1 ? std::nullopt : std::optional(*index + 1);
      const Value character = slice(run, object, *index, stop, 1);
      return as_string(character)->empty() ? undefined() : character;
    }
  }
  if (is_undefined(object)) run.fail("a variable of the template is undefined");
  const std::string* name = as_string(key);
  return name != nullptr ? bound_method(run, object, *name) : undefined();
}

Value get_attribute(Run& run, const Value& object, const std::string& name) {
  if (is_undefined(object))
    run.fail("a variable of the template is undefined: it has no '" + name + "'");
  if (object.is_object()) {
    run.step(object.size() / 16);
    if (object.contains(name)) return object.at(Value(name));
  }
  return bound_method(run, object, name);
}

Value slice(Run& run,
            const Value& object,
            std::optional<int64_t> start,
            std::optional<int64_t> stop,
            std::optional<int64_t> step) {
  const int64_t by = step.value_or(1);
  if (by == 0) run.fail("slice step cannot be zero");
  const std::string* text = as_string(object);
  if (text == nullptr && !object.is_array()) {
    if (is_undefined(object)) return undefined();
    run.fail("'" + type_name(object) + "' object is not subscriptable");
  }
  std::vector<size_t> offsets;
  int64_t size;
  if (text != nullptr) {
    run.made(text->size() * sizeof(size_t));
    offsets = char_offsets(*text);
    size = static_cast<int64_t>(offsets.size()) - 1;
  } else {
    size = static_cast<int64_t>(object.size());
  }
  // As Python's slice.indices().
  const int64_t low = by < 0 ? -1 : 0, high = by < 0 ? size - 1 : size;
  const auto bound = [&](std::optional<int64_t> at, int64_t absent) {
    return at ? std::clamp(wrapped(*at, size), low, high) : absent;
  };
  const int64_t begin = bound(start, by < 0 ? high : low), end = bound(stop, by < 0 ? low : high);
  const auto chars = [&](int64_t i, int64_t n) {
    const auto first = offsets[static_cast<size_t>(i)];
    return std::string_view(*text).substr(first, offsets[static_cast<size_t>(i + n)] - first);
  };
  if (text != nullptr && by == 1) {
    return make_string(run, begin < end ? std::string(chars(begin, end - begin)) : std::string());
  }
  std::string out;
  std::vector<Value> items;
  for (int64_t i = begin; by > 0 ? i < end : i > end;) {
    if (text != nullptr) {
      out += chars(i, 1);
    } else {
      items.push_back(object.at(static_cast<size_t>(i)));
    }
    run.step();
    if (by > 0 ? by >= end - i : by <= end - i) break;  // the next would be out, or overflow
    i += by;
  }
  return text != nullptr ? make_string(run, std::move(out)) : make_list(run, std::move(items));
}

size_t count_chars(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool is_python_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

}  // namespace flotilla::text::jinja
