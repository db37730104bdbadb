// The arguments of a call, by position or name, with Python's complaints.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/run.h"
#include "engine/text/jinja/values.h"

namespace flotilla::text::jinja {

class Params {
 public:
  // `names` in order; the first `required` must be given.
  Params(Run& run,
         std::string_view function,
         const Args& args,
         std::initializer_list<std::string_view> names,
         size_t required);

  bool has(size_t i) const { return values_[i].has_value(); }
  // Given and not None.
  bool is_set(size_t i) const { return has(i) && !is_none(*values_[i]); }
  const Value& operator[](size_t i) const { return *values_[i]; }
  Value value_or(size_t i, Value fallback) const { return has(i) ? *values_[i] : fallback; }
  // Fail for another type.
  const std::string& string(size_t i) const;
  int64_t integer(size_t i) const;
  int64_t integer_or(size_t i, int64_t fallback) const { return has(i) ? integer(i) : fallback; }
  bool flag_or(size_t i, bool fallback) const { return has(i) ? truthy(*values_[i]) : fallback; }

 private:
  Run& run_;
  std::string_view function_;
  std::vector<std::optional<Value>> values_;
};

}  // namespace flotilla::text::jinja
