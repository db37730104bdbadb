// Jinja's tests: what may follow `is`. Source: jinja2/tests.py.
#include <algorithm>

#include "engine/text/jinja/nodes.h"
#include "engine/text/jinja/params.h"
#include "engine/text/jinja/strings.h"

namespace flotilla::text::jinja {
namespace {

struct Row {
  std::string_view name;
  Test test;
};

// A test of the value alone.
template <bool (*kTest)(const Value&)>
bool plain(Scope& scope, Args& args) {
  return kTest(Params(scope.run(), "test", args, {"value"}, 1)[0]);
}

// A test of the value against another.
template <bool (*kTest)(Run&, const Value&, const Value&)>
bool against(Scope& scope, Args& args) {
  const Params p(scope.run(), "test", args, {"value", "other"}, 2);
  return kTest(scope.run(), p[0], p[1]);
}

bool is_defined(const Value& v) { return !is_undefined(v); }
bool is_boolean(const Value& v) { return v.is_boolean(); }
bool is_true(const Value& v) { return v.is_boolean() && v.get<bool>(); }
bool is_false(const Value& v) { return v.is_boolean() && !v.get<bool>(); }
bool is_integer(const Value& v) { return v.is_number_integer(); }
bool is_float(const Value& v) { return v.is_number_float(); }
bool is_number(const Value& v) { return as_number(v).has_value(); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_iterable(const Value& v) {
  return v.is_string() || v.is_array() || is_dict(v) || is_undefined(v);
}
bool is_sequence(const Value& v) { return is_iterable(v); }
bool is_function(const Value& v) { return v.is_callable(); }
bool is_upper(const Value& v) {
  const std::string* text = as_string(v);
  return text != nullptr && to_upper(*text) == *text && to_lower(*text) != *text;
}
bool is_lower(const Value& v) {
  const std::string* text = as_string(v);
  return text != nullptr && to_lower(*text) == *text && to_upper(*text) != *text;
}
bool never(const Value&) { return false; }

bool ne(Run& run, const Value& a, const Value& b) { return !equal(run, a, b); }
bool eq(Run& run, const Value& a, const Value& b) { return equal(run, a, b); }
bool lt(Run& run, const Value& a, const Value& b) { return less(run, a, b); }
bool ge(Run& run, const Value& a, const Value& b) { return !less(run, a, b); }
bool gt(Run& run, const Value& a, const Value& b) { return less(run, b, a); }
bool le(Run& run, const Value& a, const Value& b) { return !less(run, b, a); }
bool in(Run& run, const Value& a, const Value& b) { return contains(run, b, a); }
// Python's `is`; for what templates compare so (True, False, None) it is equality of one type.
bool same(Run& run, const Value& a, const Value& b) {
  return type_name(a) == type_name(b) && equal(run, a, b);
}
bool divisible(Run& run, const Value& a, const Value& b) {
  const auto i = as_int(a), j = as_int(b);
  if (!i || !j || *j == 0) run.fail("divisibleby needs integers, not divided by zero");
  return *j == -1 || *i % *j == 0;
}
template <int64_t kRest>
bool parity(Scope& scope, Args& args) {
  const Params p(scope.run(), "odd", args, {"value"}, 1);
  return (p.integer(0) % 2 != 0) == (kRest != 0);
}
bool is_filter(const Value& v) { return v.is_string() && find_filter(*as_string(v)) != nullptr; }
bool is_test(const Value& v) { return v.is_string() && find_test(*as_string(v)) != nullptr; }

constexpr Row kTests[] = {
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_function>},
    {"defined", plain<is_defined>},
    {"divisibleby", against<divisible>},
    {"eq", against<eq>},
    {"equalto", against<eq>},
    {"escaped", plain<never>},
    {"even", parity<0>},
    {"false", plain<is_false>},
    {"filter", plain<is_filter>},
    {"float", plain<is_float>},
    {"ge", against<ge>},
    {"greaterthan", against<gt>},
    {"gt", against<gt>},
    {"in", against<in>},
    {"integer", plain<is_integer>},
    {"iterable", plain<is_iterable>},
    {"le", against<le>},
    {"lessthan", against<lt>},
    {"lower", plain<is_lower>},
    {"lt", against<lt>},
    {"mapping", plain<is_dict>},
    {"ne", against<ne>},
    {"none", plain<is_none>},
    {"number", plain<is_number>},
    {"odd", parity<1>},
    {"sameas", against<same>},
    {"sequence", plain<is_sequence>},
    {"string", plain<is_string>},
    {"test", plain<is_test>},
    {"true", plain<is_true>},
    {"undefined", plain<is_undefined>},
    {"upper", plain<is_upper>},
};

}  // namespace

Test find_test(std::string_view name) {
  const auto* row = std::ranges::find(kTests, name, &Row::name);
  return row != std::end(kTests) ? row->test : nullptr;
}

}  // namespace flotilla::text::jinja
