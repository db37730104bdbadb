// Jinja's filters, and tojson as transformers defines it. Source: jinja2/filters.py.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/utf8.h"
#include "engine/text/jinja/nodes.h"
#include "engine/text/jinja/params.h"
#include "engine/text/jinja/strings.h"

namespace flotilla::text::jinja {
namespace {

struct Row {
  std::string_view name;
  Filter filter;
};

template <std::string (*kFunction)(std::string_view)>
Value map_text(Scope& scope, Args& args) {
  const Params p(scope.run(), "filter", args, {"s"}, 1);
  std::string buffer;
  return make_string(scope.run(), kFunction(text_of(scope.run(), p[0], &buffer)));
}

Value trim(Scope& scope, Args& args) {
  const Params p(scope.run(), "trim", args, {"value", "chars"}, 1);
  std::string buffer;
  const std::string_view text = text_of(scope.run(), p[0], &buffer);
  const auto chars = p.is_set(1) ? std::optional<std::string_view>(p.string(1)) : std::nullopt;
  return make_string(scope.run(), std::string(strip(text, chars, true, true)));
}

Value replace_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "replace", args, {"s", "old", "new", "count"}, 3);
  std::string a, b, c;
  return Value(replace(scope.run(),
                       text_of(scope.run(), p[0], &a),
                       text_of(scope.run(), p[1], &b),
                       text_of(scope.run(), p[2], &c),
                       p.is_set(3) ? p.integer(3) : -1));
}

Value indent(Scope& scope, Args& args) {
  const Params p(scope.run(), "indent", args, {"s", "width", "first", "blank"}, 1);
  std::string buffer, prefix;
  const std::string_view text = text_of(scope.run(), p[0], &buffer);
  if (p.has(1) && p[1].is_string()) {
    prefix = p.string(1);
  } else {
    prefix.assign(static_cast<size_t>(std::clamp<int64_t>(p.integer_or(1, 4), 0, 10000)), ' ');
  }
  const bool blank = p.flag_or(3, false);
  std::string out;
  bool first = true;
  for (size_t pos = 0;; first = false) {
    const size_t end = std::min(text.find('\n', pos), text.size());
    const std::string_view line = text.substr(pos, end - pos);
    if (!first) out += '\n';
    if (first ? p.flag_or(2, false) : blank || !line.empty()) {
      out += prefix;
      scope.run().made(prefix.size());
    }
    out += line;
    if (end == text.size()) break;
    pos = end + 1;
  }
  return make_string(scope.run(), std::move(out));
}

Value to_string_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "string", args, {"value"}, 1);
  return p[0].is_string() ? p[0] : Value(to_text(scope.run(), p[0]));
}

Value escape(Scope& scope, Args& args) {
  const Params p(scope.run(), "escape", args, {"s"}, 1);
  std::string buffer;
  return make_string(scope.run(), html_escape(text_of(scope.run(), p[0], &buffer)));
}

Value format_filter(Scope& scope, Args& args) {
  if (args.args.empty() || !args.args[0].is_string()) scope.run().fail("format needs a string");
  const std::vector<Value> values(args.args.begin() + 1, args.args.end());
  return Value(printf_format(scope.run(), *as_string(args.args[0]), Value::array(values)));
}

Value center(Scope& scope, Args& args) {
  const Params p(scope.run(), "center", args, {"value", "width"}, 1);
  std::string buffer;
  return Value(
      pad(scope.run(), text_of(scope.run(), p[0], &buffer), p.integer_or(1, 80), " ", true, true));
}

Value wordcount(Scope& scope, Args& args) {
  const Params p(scope.run(), "wordcount", args, {"s"}, 1);
  std::string buffer;
  const std::string_view text = text_of(scope.run(), p[0], &buffer);
  int64_t words = 0;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const bool space = is_python_space(utf8_decode(text, &pos));
    if (!space && !in_word) ++words;
    in_word = !space;
  }
  return Value(words);
}

Value length(Scope& scope, Args& args) {
  const Params p(scope.run(), "length", args, {"obj"}, 1);
  return Value(length_of(scope.run(), p[0]));
}

Value default_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "default", args, {"value", "default_value", "boolean"}, 1);
  const bool replace = is_undefined(p[0]) || (p.flag_or(2, false) && !truthy(p[0]));
  return replace ? p.value_or(1, Value("")) : p[0];
}

template <bool kLast>
Value end_of(Scope& scope, Args& args) {
  const Params p(scope.run(), "first", args, {"seq"}, 1);
  if (p[0].is_array()) {
    if (p[0].size() == 0) return undefined();
    return p[0].at(kLast ? p[0].size() - 1 : 0);
  }
  const std::vector<Value> items = items_of(scope.run(), p[0]);
  if (items.empty()) return undefined();
  return kLast ? items.back() : items.front();
}

Value list_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "list", args, {"value"}, 1);
  return make_list(scope.run(), items_of(scope.run(), p[0]));
}

Value items_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "items", args, {"value"}, 1);
  if (is_undefined(p[0])) return make_list(scope.run(), {});
  if (!is_dict(p[0])) scope.run().fail("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const Value& key : items_of(scope.run(), p[0])) {
    pairs.push_back(make_list(scope.run(), {key, get_item(scope.run(), p[0], key)}));
  }
  return make_list(scope.run(), std::move(pairs));
}

// "a.b.0": an attribute's attribute's item.
Value attribute_path(Run& run, Value value, const Value& path) {
  if (as_int(path)) return get_item(run, value, path);
  const std::string* text = as_string(path);
  if (text == nullptr) run.fail("an attribute must be a string or an integer");
  for (size_t pos = 0; pos <= text->size();) {
    const size_t dot = std::min(text->find('.', pos), text->size());
    const std::string part = text->substr(pos, dot - pos);
    pos = dot + 1;
    const bool number = !part.empty() && part.size() < 10 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    value = get_item(run, value, number ? Value(int64_t{std::stoi(part)}) : Value(part));
  }
  return value;
}

Value join(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "join", args, {"value", "d", "attribute"}, 1);
  const std::string separator = p.has(1) ? to_text(run, p[1]) : "";
  std::string out;
  bool first = true;
  for (const Value& item : items_of(run, p[0])) {
    if (!first) {
      run.made(separator.size());
      out += separator;
    }
    first = false;
    append_text(run, p.is_set(2) ? attribute_path(run, item, p[2]) : item, &out);
  }
  return Value(std::move(out));
}

Value map_filter(Scope& scope, Args& args) {
  Run& run = scope.run();
  if (args.args.empty()) run.fail("map needs a value");
  std::vector<Value> out;
  const std::vector<Value> items = items_of(run, args.args[0]);
  if (args.args.size() == 1) {
    Args options;
    options.kwargs = args.kwargs;
    const Params p(run, "map", options, {"attribute", "default"}, 1);
    for (const Value& item : items) {
      Value value = attribute_path(run, item, p[0]);
      out.push_back(is_undefined(value) ? p.value_or(1, value) : value);
    }
    return make_list(run, std::move(out));
  }
  const std::string* name = as_string(args.args[1]);
  const Filter filter = name != nullptr ? find_filter(*name) : nullptr;
  if (filter == nullptr) run.fail("map: no filter named '" + to_text(run, args.args[1]) + "'");
  for (const Value& item : items) {
    Run::Depth depth(run);
    run.step();
    Args call;
    call.args.push_back(item);
    call.args.insert(call.args.end(), args.args.begin() + 2, args.args.end());
    call.kwargs = args.kwargs;
    out.push_back(filter(scope, call));
  }
  return make_list(run, std::move(out));
}

template <bool kByAttribute, bool kKeep>
Value select(Scope& scope, Args& args) {
  Run& run = scope.run();
  const size_t test_at = kByAttribute ? 2 : 1;
  if (args.args.size() < (kByAttribute ? 2 : 1)) run.fail("selectattr needs an attribute");
  Test test = nullptr;
  if (args.args.size() > test_at) {
    const std::string* name = as_string(args.args[test_at]);
    test = name != nullptr ? find_test(*name) : nullptr;
    if (test == nullptr) run.fail("no test named '" + to_text(run, args.args[test_at]) + "'");
  }
  std::vector<Value> out;
  for (const Value& item : items_of(run, args.args[0])) {
    run.step();
    const Value subject = kByAttribute ? attribute_path(run, item, args.args[1]) : item;
    bool holds = false;
    if (test == nullptr) {
      holds = truthy(subject);
    } else {
      Args call;
      call.args.push_back(subject);
      call.args.insert(call.args.end(),
                       args.args.begin() + static_cast<std::ptrdiff_t>(test_at) + 1,
                       args.args.end());
      call.kwargs = args.kwargs;
      holds = test(scope, call);
    }
    if (holds == kKeep) out.push_back(item);
  }
  return make_list(run, std::move(out));
}

Value reverse(Scope& scope, Args& args) {
  const Params p(scope.run(), "reverse", args, {"value"}, 1);
  if (p[0].is_string()) return slice(scope.run(), p[0], std::nullopt, std::nullopt, -1);
  std::vector<Value> items = items_of(scope.run(), p[0]);
  std::ranges::reverse(items);
  return make_list(scope.run(), std::move(items));
}

// What sort, unique, min, max and dictsort compare: text without case unless asked.
Value sort_key(Run& run, const Value& v, bool case_sensitive) {
  const std::string* text = as_string(v);
  if (text == nullptr || case_sensitive) return v;
  run.work_on(text->size() * 8);
  return Value(to_lower(*text));
}

std::vector<Value> sorted(Run& run,
                          std::vector<Value> items,
                          const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return reverse ? less(run, keys[b], keys[a]) : less(run, keys[a], keys[b]);
  });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}

Value sort(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "sort", args, {"value", "reverse", "case_sensitive", "attribute"}, 1);
  std::vector<Value> items = items_of(run, p[0]), keys;
  for (const Value& item : items) {
    const Value by = p.is_set(3) ? attribute_path(run, item, p[3]) : item;
    keys.push_back(sort_key(run, by, p.flag_or(2, false)));
  }
  return make_list(run, sorted(run, std::move(items), keys, p.flag_or(1, false)));
}

Value dictsort(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "dictsort", args, {"value", "case_sensitive", "by", "reverse"}, 1);
  if (!is_dict(p[0])) run.fail("dictsort needs a mapping");
  const bool by_value = p.has(2) && p.string(2) == "value";
  std::vector<Value> pairs, keys;
  for (const Value& key : items_of(run, p[0])) {
    const Value value = get_item(run, p[0], key);
    pairs.push_back(make_list(run, {key, value}));
    keys.push_back(sort_key(run, by_value ? value : key, p.flag_or(1, false)));
  }
  return make_list(run, sorted(run, std::move(pairs), keys, p.flag_or(3, false)));
}

Value unique(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "unique", args, {"value", "case_sensitive", "attribute"}, 1);
  std::vector<Value> out, seen;
  for (const Value& item : items_of(run, p[0])) {
    const Value by = p.is_set(2) ? attribute_path(run, item, p[2]) : item;
    const Value key = sort_key(run, by, p.flag_or(1, false));
    if (std::ranges::any_of(seen, [&](const Value& s) { return equal(run, s, key); })) continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return make_list(run, std::move(out));
}

template <bool kMax>
Value extreme(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "min", args, {"value", "case_sensitive", "attribute"}, 1);
  Value best = undefined(), best_key;
  bool first = true;
  for (const Value& item : items_of(run, p[0])) {
    const Value by = p.is_set(2) ? attribute_path(run, item, p[2]) : item;
    const Value key = sort_key(run, by, p.flag_or(1, false));
    if (first || (kMax ? less(run, best_key, key) : less(run, key, best_key))) {
      best = item;
      best_key = key;
    }
    first = false;
  }
  return best;
}

Value sum(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "sum", args, {"iterable", "attribute", "start"}, 1);
  int64_t whole = 0;
  double real = 0;
  bool is_real = false;
  const auto add = [&](const Value& v) {
    const auto i = as_int(v);
    const auto x = as_number(v);
    if (!x) run.fail("sum needs numbers");
    real += *x;
    if (!i) {
      is_real = true;
    } else if (__builtin_add_overflow(whole, *i, &whole)) {
      run.fail("integer overflow");
    }
  };
  if (p.has(2)) add(p[2]);
  for (const Value& item : items_of(run, p[0])) {
    add(p.is_set(1) ? attribute_path(run, item, p[1]) : item);
  }
  return is_real ? Value(real) : Value(whole);
}

Value batch(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(run, "batch", args, {"value", "linecount", "fill_with"}, 2);
  if (p.integer(1) < 1) run.fail("batch needs a positive count");
  const auto size = static_cast<size_t>(p.integer(1));
  std::vector<Value> out, row;
  for (const Value& item : items_of(run, p[0])) {
    row.push_back(item);
    if (row.size() == size) out.push_back(make_list(run, std::exchange(row, {})));
  }
  if (!row.empty()) {
    while (p.is_set(2) && row.size() < size) {
      run.made(sizeof(Value));
      row.push_back(p[2]);
    }
    out.push_back(make_list(run, std::move(row)));
  }
  return make_list(run, std::move(out));
}

Value abs_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "abs", args, {"x"}, 1);
  if (const auto i = as_int(p[0])) {
    if (*i == INT64_MIN) scope.run().fail("integer overflow");
    return Value(*i < 0 ? -*i : *i);
  }
  const auto x = as_number(p[0]);
  if (!x) scope.run().fail("abs needs a number");
  return Value(std::fabs(*x));
}

Value round_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "round", args, {"value", "precision", "method"}, 1);
  const auto x = as_number(p[0]);
  if (!x) scope.run().fail("round needs a number");
  const std::string method = p.has(2) ? p.string(2) : "common";
  const double scale =
      std::pow(10.0, static_cast<double>(std::clamp<int64_t>(p.integer_or(1, 0), -300, 300)));
  const double scaled = *x * scale;
  const double rounded = method == "ceil"    ? std::ceil(scaled)
                         : method == "floor" ? std::floor(scaled)
                                             : std::nearbyint(scaled);
  return Value(rounded / scale);
}

Value int_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "int", args, {"value", "default", "base"}, 1);
  if (const auto i = as_int(p[0])) return Value(*i);
  double x = NAN;
  if (const auto number = as_number(p[0])) {
    x = *number;
  } else if (const std::string* text = as_string(p[0])) {
    const std::string trimmed(strip(*text, std::nullopt, true, true));
    const int base = static_cast<int>(std::clamp<int64_t>(p.integer_or(2, 10), 2, 36));
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(trimmed.c_str(), &end, base);
    if (!trimmed.empty() && *end == '\0' && errno == 0) return Value(int64_t{value});
    if (!trimmed.empty() && trimmed.size() < 400) {
      x = std::strtod(trimmed.c_str(), &end);
      if (*end != '\0') x = NAN;
    }
  }
  if (x > -9e18 && x < 9e18) return Value(static_cast<int64_t>(x));
  return p.value_or(1, Value(int64_t{0}));
}

Value float_filter(Scope& scope, Args& args) {
  const Params p(scope.run(), "float", args, {"value", "default"}, 1);
  if (const auto x = as_number(p[0])) return Value(*x);
  if (const std::string* text = as_string(p[0])) {
    const std::string trimmed(strip(*text, std::nullopt, true, true));
    char* end = nullptr;
    const double x = std::strtod(trimmed.c_str(), &end);
    if (!trimmed.empty() && *end == '\0') return Value(x);
  }
  return p.value_or(1, Value(0.0));
}

// json.dumps with transformers' defaults.
Value tojson(Scope& scope, Args& args) {
  Run& run = scope.run();
  const Params p(
      run, "tojson", args, {"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1);
  JsonStyle style;
  style.ensure_ascii = p.flag_or(1, false);
  style.sort_keys = p.flag_or(4, false);
  if (p.is_set(2)) {
    style.indent =
        p[2].is_string()
            ? p.string(2)
            : std::string(static_cast<size_t>(std::clamp<int64_t>(p.integer(2), 0, 1000)), ' ');
    style.item_separator = ",";
  }
  if (p.is_set(3)) {
    if (!p[3].is_array() || p[3].size() != 2) run.fail("separators must be a pair");
    style.item_separator = to_text(run, p[3].at(size_t{0}));
    style.key_separator = to_text(run, p[3].at(size_t{1}));
  }
  return Value(to_json(run, p[0], style));
}

Value attr(Scope& scope, Args& args) {
  const Params p(scope.run(), "attr", args, {"obj", "name"}, 2);
  return get_attribute(scope.run(), p[0], p.string(1));
}

constexpr Row kFilters[] = {
    {"abs", abs_filter},
    {"attr", attr},
    {"batch", batch},
    {"capitalize", map_text<capitalize>},
    {"center", center},
    {"count", length},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort},
    {"e", escape},
    {"escape", escape},
    {"first", end_of<false>},
    {"float", float_filter},
    {"format", format_filter},
    {"indent", indent},
    {"int", int_filter},
    {"items", items_filter},
    {"join", join},
    {"last", end_of<true>},
    {"length", length},
    {"list", list_filter},
    {"lower", map_text<to_lower>},
    {"map", map_filter},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select<false, false>},
    {"rejectattr", select<true, false>},
    {"replace", replace_filter},
    {"reverse", reverse},
    {"round", round_filter},
    {"safe", to_string_filter},
    {"select", select<false, true>},
    {"selectattr", select<true, true>},
    {"sort", sort},
    {"string", to_string_filter},
    {"sum", sum},
    {"title", map_text<title>},
    {"tojson", tojson},
    {"trim", trim},
    {"unique", unique},
    {"upper", map_text<to_upper>},
    {"wordcount", wordcount},
};

}  // namespace

Filter find_filter(std::string_view name) {
  const auto* row = std::ranges::find(kFilters, name, &Row::name);
  return row != std::end(kFilters) ? row->filter : nullptr;
}

}  // namespace flotilla::text::jinja
