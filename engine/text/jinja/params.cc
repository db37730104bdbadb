#include "engine/text/jinja/params.h"

#include <algorithm>

namespace flotilla::text::jinja {

Params::Params(Run& run,
               std::string_view function,
               const Args& args,
               std::initializer_list<std::string_view> names,
               size_t required)
    : run_(run), function_(function), values_(names.size()) {
  const std::string name(function);
  if (args.args.size() > names.size()) {
    run.fail(name + "() takes at most " + std::to_string(names.size()) + " arguments, but " +
             std::to_string(args.args.size()) + " were given");
  }
  for (size_t i = 0; i < args.args.size(); ++i) values_[i] = args.args[i];
  for (const auto& [key, value] : args.kwargs) {
    const auto* at = std::ranges::find(names, std::string_view(key));
    if (at == names.end()) run.fail(name + "() has no argument '" + key + "'");
    auto& slot = values_[static_cast<size_t>(at - names.begin())];
    if (slot) run.fail(name + "() got two values for '" + key + "'");
    slot = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!values_[i])
      run.fail(name + "() lacks its argument '" + std::string(names.begin()[i]) + "'");
  }
}

const std::string& Params::string(size_t i) const {
  const std::string* text = as_string(*values_[i]);
  if (text == nullptr) {
    run_.fail(std::string(function_) + "() expected a string, but got " + type_name(*values_[i]));
  }
  return *text;
}

int64_t Params::integer(size_t i) const {
  const auto value = as_int(*values_[i]);
  if (!value) {
    run_.fail(std::string(function_) + "() expected an integer, but got " + type_name(*values_[i]));
  }
  return *value;
}

}  // namespace flotilla::text::jinja
