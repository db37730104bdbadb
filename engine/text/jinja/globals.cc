#include "engine/text/jinja/globals.h"

#include <memory>
#include <utility>

#include "engine/text/jinja/params.h"

namespace flotilla::text::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // Jinja's sandbox has the same
constexpr size_t kMaxTimeFormat = 256;

using Function = Value (*)(Run& run, Args& args);

Value raise_exception(Run& run, Args& args) {
  const Params p(run, "raise_exception", args, {"message"}, 1);
  run.fail(Failure::kRaised, to_text(run, p[0]));
}

Value strftime_now(Run& run, Args& args) {
  const Params p(run, "strftime_now", args, {"format"}, 1);
  const std::string& format = p.string(0);
  if (format.size() > kMaxTimeFormat) run.fail("strftime_now: the format is too long");
  const std::time_t now = run.now();
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[kMaxTimeFormat * 16];
  return Value(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &local)));
}

Value range(Run& run, Args& args) {
  const bool one = args.args.size() == 1;
  const Params p(run, "range", args, {"start", "stop", "step"}, 1);
  const int64_t start = one ? 0 : p.integer(0), stop = one ? p.integer(0) : p.integer(1);
  const int64_t step = p.integer_or(2, 1);
  if (step == 0) run.fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      run.fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_list(run, std::move(items));
}

// dict(a=1), namespace(a=1), and of a mapping first.
Value filled(Run& run, Args& args, Value object) {
  if (args.args.size() > 1) run.fail("dict() and namespace() take one mapping at most");
  const auto set = [&](const Value& key, const Value& value) {
    run.step(object.size() / 16);
    run.made(sizeof(Value));
    object.set(key, value);
  };
  if (!args.args.empty()) {
    const Value& from = args.args[0];
    for (const Value& item : items_of(run, from)) {
      if (is_dict(from)) {
        set(item, get_item(run, from, item));
      } else if (item.is_array() && item.size() == 2 && item.at(size_t{0}).is_hashable()) {
        set(item.at(size_t{0}), item.at(size_t{1}));
      } else {
        run.fail("dict() takes a mapping or a list of pairs");
      }
    }
  }
  for (const auto& [key, value] : args.kwargs) set(Value(key), value);
  return run.keep(object);
}

Value make_dict(Run& run, Args& args) { return filled(run, args, Value::object()); }
Value make_namespace_from(Run& run, Args& args) { return filled(run, args, make_namespace()); }

Value joiner(Run& run, Args& args) {
  const Params p(run, "joiner", args, {"sep"}, 0);
  const std::string separator = p.has(0) ? p.string(0) : ", ";
  const auto used = std::make_shared<bool>(false);
  return Value::callable([separator, used](const std::shared_ptr<minja::Context>&, Args&) {
    return Value(std::exchange(*used, true) ? separator : std::string());
  });
}

constexpr std::pair<const char*, Function> kFunctions[] = {{"raise_exception", raise_exception},
                                                           {"strftime_now", strftime_now},
                                                           {"range", range},
                                                           {"dict", make_dict},
                                                           {"namespace", make_namespace_from},
                                                           {"joiner", joiner}};

}  // namespace

void add_globals(Scope& scope) {
  Run& run = scope.run();
  for (const auto& [name, function] : kFunctions) {
    scope.assign(name,
                 Value::callable([&run, function = function](const std::shared_ptr<minja::Context>&,
                                                             Args& args) {
                   run.step();
                   return function(run, args);
                 }));
  }
}

}  // namespace flotilla::text::jinja
