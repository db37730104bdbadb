// Python's view of minja's values: truth, equality, text, JSON. A missing value ("undefined") is
// told apart from None, which minja does not; lists stand for tuples too.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/run.h"

namespace flotilla::text::jinja {

Value undefined();
bool is_undefined(const Value& v);
inline bool is_none(const Value& v) { return v.is_null(); }

Value make_namespace();
bool is_namespace(const Value& v);
// A dict, as against a namespace or a function (minja's callables are objects too).
bool is_dict(const Value& v);

// Null if it is no string. No copy.
const std::string* as_string(const Value& v);
// An integer or a boolean.
std::optional<int64_t> as_int(const Value& v);
std::optional<double> as_number(const Value& v);

bool truthy(const Value& v);
std::string type_name(const Value& v);  // "str", "dict", …
bool equal(Run& run, const Value& a, const Value& b, int depth = 0);
// a < b; fails for values without an order.
bool less(Run& run, const Value& a, const Value& b, int depth = 0);
bool contains(Run& run, const Value& container, const Value& item);

// str(v): what {{ v }} prints.
std::string to_text(Run& run, const Value& v);
void append_text(Run& run, const Value& v, std::string* out);
// str(v) of a string without a copy, else through *buffer.
std::string_view text_of(Run& run, const Value& v, std::string* buffer);

struct JsonStyle {
  std::optional<std::string> indent;  // one level's
  std::string item_separator = ", ", key_separator = ": ";
  bool ensure_ascii = false, sort_keys = false;
};
std::string to_json(Run& run, const Value& v, const JsonStyle& style);

// Characters, items or keys; nothing for undefined. Fails for what Python cannot iterate.
std::vector<Value> items_of(Run& run, const Value& v);
int64_t length_of(Run& run, const Value& v);
Value make_list(Run& run, std::vector<Value> items);
Value make_string(Run& run, std::string text);

// obj[key] and obj.name; undefined if it is not there.
Value get_item(Run& run, const Value& object, const Value& key);
Value get_attribute(Run& run, const Value& object, const std::string& name);
Value slice(Run& run,
            const Value& object,
            std::optional<int64_t> start,
            std::optional<int64_t> stop,
            std::optional<int64_t> step);

// Characters of UTF-8.
size_t count_chars(std::string_view text);
bool is_python_space(char32_t c);

}  // namespace flotilla::text::jinja
