#include "engine/text/jinja/methods.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/utf8.h"
#include "engine/text/jinja/params.h"
#include "engine/text/jinja/strings.h"
#include "engine/text/jinja/values.h"
#include "engine/text/unicode.h"

namespace flotilla::text::jinja {
namespace {

using Method = Value (*)(Run& run, const Value& self, const Args& args);

struct Row {
  std::string_view name;
  Method method;
};

const std::string& text_in(const Value& self) { return *as_string(self); }

std::optional<std::string_view> chars_of(const Params& p) {
  return p.is_set(0) ? std::optional<std::string_view>(p.string(0)) : std::nullopt;
}

template <bool kLeft, bool kRight>
Value str_strip(Run& run, const Value& self, const Args& args) {
  const Params p(run, "strip", args, {"chars"}, 0);
  run.work_on(text_in(self).size());
  return make_string(run, std::string(strip(text_in(self), chars_of(p), kLeft, kRight)));
}

// Pieces between runs of white space; at most `limit` cuts if ≥ 0.
void split_on_spaces(std::string_view text,
                     int64_t limit,
                     bool from_right,
                     std::vector<std::string>* out) {
  while (true) {
    text = strip(text, std::nullopt, !from_right, from_right);
    if (text.empty()) return;
    if (limit == 0) {
      out->emplace_back(text);
      return;
    }
    --limit;
    size_t begin = 0, end = text.size();
    if (from_right) {
      size_t cut = text.size();
      while (cut > 0) {
        size_t start = cut - 1;
        while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
        size_t pos = start;
        if (is_python_space(utf8_decode(text, &pos))) break;
        cut = start;
      }
      begin = cut;
    } else {
      for (size_t pos = 0; pos < text.size();) {
        const size_t at = pos;
        if (is_python_space(utf8_decode(text, &pos))) {
          end = at;
          break;
        }
      }
    }
    out->emplace_back(text.substr(begin, end - begin));
    text = from_right ? text.substr(0, begin) : text.substr(end);
  }
}

Value split_text(Run& run, const Value& self, const Args& args, bool from_right) {
  const Params p(run, "split", args, {"sep", "maxsplit"}, 0);
  const std::string& text = text_in(self);
  int64_t limit = p.integer_or(1, -1);
  run.work_on(text.size());
  std::vector<std::string> parts;
  if (!p.is_set(0)) {
    split_on_spaces(text, limit, from_right, &parts);
  } else {
    const std::string& separator = p.string(0);
    if (separator.empty()) run.fail("empty separator");
    std::string_view rest = text;
    for (; limit != 0; --limit) {
      const size_t at = from_right ? rest.rfind(separator) : rest.find(separator);
      if (at == std::string_view::npos) break;
      if (from_right) {
        parts.emplace_back(rest.substr(at + separator.size()));
        rest = rest.substr(0, at);
      } else {
        parts.emplace_back(rest.substr(0, at));
        rest.remove_prefix(at + separator.size());
      }
      run.step();
    }
    parts.emplace_back(rest);
  }
  if (from_right) std::ranges::reverse(parts);
  run.made(text.size());
  std::vector<Value> items;
  for (std::string& part : parts) items.emplace_back(std::move(part));
  return make_list(run, std::move(items));
}

Value str_split(Run& run, const Value& self, const Args& args) {
  return split_text(run, self, args, false);
}
Value str_rsplit(Run& run, const Value& self, const Args& args) {
  return split_text(run, self, args, true);
}

Value str_splitlines(Run& run, const Value& self, const Args& args) {
  const Params p(run, "splitlines", args, {"keepends"}, 0);
  const bool keep = p.flag_or(0, false);
  const std::string& text = text_in(self);
  run.made(text.size());
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = utf8_decode(text, &pos);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.emplace_back(text.substr(begin, (keep ? pos : at) - begin));
    begin = pos;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return make_list(run, std::move(lines));
}

// startswith, endswith: a string or a list of them.
template <bool kFront>
Value str_has_affix(Run& run, const Value& self, const Args& args) {
  const Params p(run, kFront ? "startswith" : "endswith", args, {"prefix", "start", "end"}, 1);
  const Value part =
      p.has(1)
          ? slice(run, self, p.integer(1), p.has(2) ? std::optional(p.integer(2)) : std::nullopt, 1)
          : self;
  const std::string& text = text_in(part);
  const auto matches = [&](const Value& affix) {
    const std::string* s = as_string(affix);
    if (s == nullptr) run.fail("startswith and endswith take a string or a tuple of strings");
    return kFront ? text.starts_with(*s) : text.ends_with(*s);
  };
  if (!p[0].is_array()) return Value(matches(p[0]));
  for (size_t i = 0; i < p[0].size(); ++i) {
    if (matches(p[0].at(i))) return Value(true);
  }
  return Value(false);
}

Value str_replace(Run& run, const Value& self, const Args& args) {
  const Params p(run, "replace", args, {"old", "new", "count"}, 2);
  return Value(replace(run, text_in(self), p.string(0), p.string(1), p.integer_or(2, -1)));
}

template <std::string (*kFunction)(std::string_view)>
Value str_map(Run& run, const Value& self, const Args& args) {
  const Params p(run, "method", args, {}, 0);
  return make_string(run, kFunction(text_in(self)));
}

template <bool kLast, bool kMustFind>
Value str_find(Run& run, const Value& self, const Args& args) {
  const Params p(run, "find", args, {"sub"}, 1);
  const std::string& text = text_in(self);
  run.work_on(text.size());
  const size_t at = kLast ? text.rfind(p.string(0)) : text.find(p.string(0));
  if (at == std::string::npos) {
    if (kMustFind) run.fail("substring not found");
    return Value(int64_t{-1});
  }
  return Value(static_cast<int64_t>(count_chars(std::string_view(text).substr(0, at))));
}

Value str_count(Run& run, const Value& self, const Args& args) {
  const Params p(run, "count", args, {"sub"}, 1);
  const std::string &text = text_in(self), &part = p.string(0);
  run.work_on(text.size());
  if (part.empty()) return Value(static_cast<int64_t>(count_chars(text)) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return Value(n);
}

Value str_join(Run& run, const Value& self, const Args& args) {
  const Params p(run, "join", args, {"iterable"}, 1);
  std::string out;
  bool first = true;
  for (const Value& item : items_of(run, p[0])) {
    const std::string* text = as_string(item);
    if (text == nullptr) run.fail("join: expected str instance, " + type_name(item) + " found");
    if (!first) out += text_in(self);
    first = false;
    out += *text;
    run.made(text->size() + text_in(self).size());
  }
  return Value(std::move(out));
}

template <bool kFront>
Value str_remove_affix(Run& run, const Value& self, const Args& args) {
  const Params p(run, "removeprefix", args, {"affix"}, 1);
  std::string_view text = text_in(self);
  const std::string& affix = p.string(0);
  if (kFront && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!kFront && text.ends_with(affix)) text.remove_suffix(affix.size());
  return make_string(run, std::string(text));
}

template <bool kLast>
Value str_partition(Run& run, const Value& self, const Args& args) {
  const Params p(run, "partition", args, {"sep"}, 1);
  const std::string &text = text_in(self), &separator = p.string(0);
  if (separator.empty()) run.fail("empty separator");
  run.made(text.size());
  const size_t at = kLast ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return make_list(run,
                     kLast ? std::vector<Value>{"", "", self} : std::vector<Value>{self, "", ""});
  }
  return make_list(
      run,
      {Value(text.substr(0, at)), Value(separator), Value(text.substr(at + separator.size()))});
}

template <bool kLeft, bool kRight>
Value str_pad(Run& run, const Value& self, const Args& args) {
  const Params p(run, "just", args, {"width", "fillchar"}, 1);
  const std::string fill = p.has(1) ? p.string(1) : " ";
  return Value(pad(run, text_in(self), p.integer(0), fill, kLeft, kRight));
}

bool is_letter(char32_t c) {
  std::string upper;
  utf8_append(&upper, c);
  return to_upper(upper) != upper || to_lower(upper) != upper || c >= 0x3400;
}
bool is_digit(char32_t c) { return is_numeric(c); }
bool is_alnum(char32_t c) { return is_letter(c) || is_numeric(c); }
bool is_space(char32_t c) { return is_python_space(c); }

template <bool (*kTest)(char32_t)>
Value str_all(Run& run, const Value& self, const Args& args) {
  const Params p(run, "is…", args, {}, 0);
  const std::string& text = text_in(self);
  run.work_on(text.size() * 8);
  for (size_t pos = 0; pos < text.size();) {
    if (!kTest(utf8_decode(text, &pos))) return Value(false);
  }
  return Value(!text.empty());
}

template <bool kUpper>
Value str_is_case(Run& run, const Value& self, const Args& args) {
  const Params p(run, "is…", args, {}, 0);
  const std::string& text = text_in(self);
  run.work_on(text.size() * 4);
  const std::string lower = to_lower(text), upper = to_upper(text);
  return Value(lower != upper && text == (kUpper ? upper : lower));
}

// "{} {0} {name}", without conversions or format specifications.
Value str_format(Run& run, const Value& self, const Args& args) {
  const std::string& text = text_in(self);
  std::string out;
  size_t next = 0;
  for (size_t pos = 0; pos < text.size(); ++pos) {
    const char c = text[pos];
    if ((c == '{' || c == '}') && pos + 1 < text.size() && text[pos + 1] == c) {
      out += c;
      ++pos;
    } else if (c == '{') {
      const size_t close = text.find('}', pos);
      if (close == std::string::npos) run.fail("expected '}' before end of string");
      const std::string field = text.substr(pos + 1, close - pos - 1);
      pos = close;
      size_t index = args.args.size();
      if (field.empty()) {
        index = next++;
      } else if (field.find_first_not_of("0123456789") == std::string::npos && field.size() < 6) {
        index = static_cast<size_t>(std::stoi(field));
      } else {
        const auto it =
            std::ranges::find(args.kwargs, field, &std::pair<std::string, Value>::first);
        if (it == args.kwargs.end()) run.fail("format field '{" + field + "}' is not supported");
        append_text(run, it->second, &out);
        continue;
      }
      if (index >= args.args.size()) run.fail("Replacement index out of range for format()");
      append_text(run, args.args[index], &out);
    } else {
      if (c == '}') run.fail("Single '}' encountered in format string");
      out += c;
    }
  }
  return make_string(run, std::move(out));
}

constexpr Row kStringMethods[] = {
    {"strip", str_strip<true, true>},
    {"lstrip", str_strip<true, false>},
    {"rstrip", str_strip<false, true>},
    {"split", str_split},
    {"rsplit", str_rsplit},
    {"splitlines", str_splitlines},
    {"startswith", str_has_affix<true>},
    {"endswith", str_has_affix<false>},
    {"replace", str_replace},
    {"upper", str_map<to_upper>},
    {"lower", str_map<to_lower>},
    {"casefold", str_map<to_lower>},
    {"title", str_map<title>},
    {"capitalize", str_map<capitalize>},
    {"find", str_find<false, false>},
    {"rfind", str_find<true, false>},
    {"index", str_find<false, true>},
    {"rindex", str_find<true, true>},
    {"count", str_count},
    {"join", str_join},
    {"removeprefix", str_remove_affix<true>},
    {"removesuffix", str_remove_affix<false>},
    {"partition", str_partition<false>},
    {"rpartition", str_partition<true>},
    {"ljust", str_pad<false, true>},
    {"rjust", str_pad<true, false>},
    {"center", str_pad<true, true>},
    {"isalpha", str_all<is_letter>},
    {"isdigit", str_all<is_digit>},
    {"isnumeric", str_all<is_digit>},
    {"isalnum", str_all<is_alnum>},
    {"isspace", str_all<is_space>},
    {"isupper", str_is_case<true>},
    {"islower", str_is_case<false>},
    {"format", str_format},
};

Value dict_keys(Run& run, const Value& self, const Args& args) {
  const Params p(run, "keys", args, {}, 0);
  return make_list(run, items_of(run, self));
}

Value dict_values(Run& run, const Value& self, const Args& args) {
  const Params p(run, "values", args, {}, 0);
  std::vector<Value> values;
  for (const Value& key : items_of(run, self)) values.push_back(get_item(run, self, key));
  return make_list(run, std::move(values));
}

Value dict_items(Run& run, const Value& self, const Args& args) {
  const Params p(run, "items", args, {}, 0);
  std::vector<Value> items;
  for (const Value& key : items_of(run, self)) {
    items.push_back(make_list(run, {key, get_item(run, self, key)}));
  }
  return make_list(run, std::move(items));
}

Value dict_get(Run& run, const Value& self, const Args& args) {
  const Params p(run, "get", args, {"key", "default"}, 1);
  run.step(self.size() / 16);
  const bool there = p[0].is_hashable() && !is_undefined(p[0]) && self.contains(p[0]);
  return there ? self.at(p[0]) : p.value_or(1, Value());
}

constexpr Row kDictMethods[] = {
    {"keys", dict_keys},
    {"values", dict_values},
    {"items", dict_items},
    {"get", dict_get},
    {"copy", [](Run&, const Value& self, const Args&) { return self; }},
};

Value list_index(Run& run, const Value& self, const Args& args) {
  const Params p(run, "index", args, {"value"}, 1);
  for (size_t i = 0; i < self.size(); ++i) {
    if (equal(run, self.at(i), p[0])) return Value(static_cast<int64_t>(i));
  }
  run.fail("value is not in list");
}

Value list_count(Run& run, const Value& self, const Args& args) {
  const Params p(run, "count", args, {"value"}, 1);
  int64_t n = 0;
  for (size_t i = 0; i < self.size(); ++i) n += equal(run, self.at(i), p[0]) ? 1 : 0;
  return Value(n);
}

constexpr Row kListMethods[] = {
    {"index", list_index},
    {"count", list_count},
    {"copy", [](Run&, const Value& self, const Args&) { return self; }},
};

// Jinja's immutable sandbox, which transformers uses, refuses these.
constexpr std::string_view kForbidden[] = {"append",
                                           "clear",
                                           "extend",
                                           "insert",
                                           "pop",
                                           "popitem",
                                           "remove",
                                           "reverse",
                                           "setdefault",
                                           "sort",
                                           "update"};

}  // namespace

Value bound_method(Run& run, const Value& object, const std::string& name) {
  std::span<const Row> rows;
  if (object.is_string()) rows = kStringMethods;
  if (object.is_array()) rows = kListMethods;
  if (is_dict(object)) rows = kDictMethods;
  const auto row = std::ranges::find(rows, std::string_view(name), &Row::name);
  if (row == rows.end()) {
    if ((object.is_array() || is_dict(object)) &&
        std::ranges::find(kForbidden, std::string_view(name)) != std::end(kForbidden)) {
      run.fail("access to attribute '" + name + "' of '" + type_name(object) +
               "' object is unsafe: a template may not change its input");
    }
    return undefined();
  }
  const Method method = row->method;
  return Value::callable(
      [&run, object, method](const std::shared_ptr<minja::Context>&, Args& args) {
        run.step();
        return method(run, object, args);
      });
}

}  // namespace flotilla::text::jinja
