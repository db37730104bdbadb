#include <cmath>

#include "engine/text/jinja/nodes.h"
#include "engine/text/jinja/strings.h"

namespace flotilla::text::jinja {
namespace {

const std::string kLoop = "loop";

class Literal final : public Expr {
 public:
  Literal(int line, Value value) : Expr(line), value_(std::move(value)) {}
  Value eval(Scope&) const override { return value_; }

 private:
  Value value_;
};

class Variable final : public Expr {
 public:
  Variable(int line, std::string name) : Expr(line), name_(std::move(name)) {}
  const std::string* variable() const override { return &name_; }
  Value eval(Scope& scope) const override {
    if (const Value* value = scope.find(name_)) return *value;
    return undefined();
  }

 private:
  std::string name_;
};

class List final : public Expr {
 public:
  List(int line, std::vector<ExprPtr> items) : Expr(line), items_(std::move(items)) {}
  Value eval(Scope& scope) const override {
    std::vector<Value> values;
    for (const auto& item : items_) values.push_back((*item)(scope));
    return make_list(scope.run(), std::move(values));
  }

 private:
  std::vector<ExprPtr> items_;
};

class Dict final : public Expr {
 public:
  Dict(int line, std::vector<std::pair<ExprPtr, ExprPtr>> items)
      : Expr(line), items_(std::move(items)) {}
  Value eval(Scope& scope) const override {
    Value dict = Value::object();
    for (const auto& [key, value] : items_) {
      const Value k = (*key)(scope);
      if (!k.is_hashable() || is_undefined(k))
        scope.run().fail("unhashable type: '" + type_name(k) + "'");
      scope.run().step(dict.size() / 16);
      dict.set(k, (*value)(scope));
    }
    return scope.run().keep(dict);
  }

 private:
  std::vector<std::pair<ExprPtr, ExprPtr>> items_;
};

class Condition final : public Expr {
 public:
  Condition(int line, ExprPtr test, ExprPtr yes, ExprPtr no)
      : Expr(line), test_(std::move(test)), yes_(std::move(yes)), no_(std::move(no)) {}
  Value eval(Scope& scope) const override {
    if (truthy((*test_)(scope))) return (*yes_)(scope);
    return no_ != nullptr ? (*no_)(scope) : undefined();
  }

 private:
  ExprPtr test_, yes_, no_;
};

class AndOr final : public Expr {
 public:
  AndOr(int line, bool is_and, ExprPtr left, ExprPtr right)
      : Expr(line), is_and_(is_and), left_(std::move(left)), right_(std::move(right)) {}
  Value eval(Scope& scope) const override {
    Value left = (*left_)(scope);
    return truthy(left) == is_and_ ? (*right_)(scope) : left;
  }

 private:
  bool is_and_;
  ExprPtr left_, right_;
};

class Not final : public Expr {
 public:
  Not(int line, ExprPtr of) : Expr(line), of_(std::move(of)) {}
  Value eval(Scope& scope) const override { return Value(!truthy((*of_)(scope))); }

 private:
  ExprPtr of_;
};

[[noreturn]] void wrong_operands(Run& run, const char* op, const Value& a, const Value& b) {
  if (is_undefined(a) || is_undefined(b)) run.fail("a variable of the template is undefined");
  run.fail(std::string("unsupported operand type(s) for ") + op + ": '" + type_name(a) + "' and '" +
           type_name(b) + "'");
}

class Sign final : public Expr {
 public:
  Sign(int line, bool negative, ExprPtr of) : Expr(line), negative_(negative), of_(std::move(of)) {}
  Value eval(Scope& scope) const override {
    const Value v = (*of_)(scope);
    if (const auto i = as_int(v)) {
      if (*i == INT64_MIN) scope.run().fail("integer overflow");
      return Value(negative_ ? -*i : *i);
    }
    if (const auto x = as_number(v)) return Value(negative_ ? -*x : *x);
    scope.run().fail("bad operand type for unary sign: '" + type_name(v) + "'");
  }

 private:
  bool negative_;
  ExprPtr of_;
};

class Binary final : public Expr {
 public:
  Binary(int line, BinaryOp op, ExprPtr left, ExprPtr right)
      : Expr(line), op_(op), left_(std::move(left)), right_(std::move(right)) {}

  Value eval(Scope& scope) const override {
    Run& run = scope.run();
    const Value a = (*left_)(scope), b = (*right_)(scope);
    if (op_ == BinaryOp::kMod && a.is_string()) return Value(printf_format(run, *as_string(a), b));
    if (op_ == BinaryOp::kAdd && a.is_string() && b.is_string()) {
      run.made(as_string(a)->size() + as_string(b)->size());
      return Value(*as_string(a) + *as_string(b));
    }
    if (op_ == BinaryOp::kAdd && a.is_array() && b.is_array()) {
      std::vector<Value> items = items_of(run, a);
      for (const Value& item : items_of(run, b)) items.push_back(item);
      return make_list(run, std::move(items));
    }
    if (op_ == BinaryOp::kMul) {
      if ((a.is_string() || a.is_array()) && as_int(b)) return repeated(run, a, *as_int(b));
      if ((b.is_string() || b.is_array()) && as_int(a)) return repeated(run, b, *as_int(a));
    }
    const auto i = as_int(a), j = as_int(b);
    if (i && j && op_ != BinaryOp::kDiv) {
      if (op_ != BinaryOp::kPow) return integers(run, *i, *j);
      if (*j >= 0) return power(run, *i, *j);
    }
    const auto x = as_number(a), y = as_number(b);
    if (!x || !y) wrong_operands(run, name(), a, b);
    return floats(run, *x, *y);
  }

 private:
  const char* name() const {
    static constexpr const char* kNames[] = {"+", "-", "*", "/", "//", "%", "**"};
    return kNames[static_cast<int>(op_)];
  }

  static Value repeated(Run& run, const Value& v, int64_t times) {
    if (times < 0) times = 0;
    const auto size = static_cast<uint64_t>(v.is_string() ? as_string(v)->size() : v.size());
    if (size > 0 && static_cast<uint64_t>(times) > run.limits().bytes / size) {
      run.fail(Failure::kLimit, "the chat template repeats a value too often");
    }
    if (const std::string* text = as_string(v)) {
      run.made(size * static_cast<uint64_t>(times));
      std::string out;
      for (int64_t i = 0; i < times && size > 0; ++i) out += *text;
      return Value(std::move(out));
    }
    std::vector<Value> items;
    for (int64_t i = 0; i < times && size > 0; ++i) {
      for (const Value& item : items_of(run, v)) items.push_back(item);
    }
    return make_list(run, std::move(items));
  }

  Value integers(Run& run, int64_t a, int64_t b) const {
    int64_t out = 0;
    bool overflow = false;
    switch (op_) {
      case BinaryOp::kAdd:
        overflow = __builtin_add_overflow(a, b, &out);
        break;
      case BinaryOp::kSub:
        overflow = __builtin_sub_overflow(a, b, &out);
        break;
      case BinaryOp::kMul:
        overflow = __builtin_mul_overflow(a, b, &out);
        break;
      default:
        if (b == 0) run.fail("integer division or modulo by zero");
        if (b == -1) {  // INT64_MIN / −1 has no result
          overflow = op_ == BinaryOp::kFloorDiv && __builtin_sub_overflow(int64_t{0}, a, &out);
          break;
        }
        out = op_ == BinaryOp::kFloorDiv ? a / b : a % b;
        // Python rounds down.
        if (a % b != 0 && (a < 0) != (b < 0)) out += op_ == BinaryOp::kFloorDiv ? -1 : b;
    }
    if (overflow) run.fail("integer overflow");
    return Value(out);
  }

  static Value power(Run& run, int64_t base, int64_t exponent) {
    int64_t out = 1;
    if (base == 0 || base == 1 || base == -1) {
      if (base == 0) return Value(int64_t{exponent == 0});
      return Value(base == 1 || exponent % 2 == 0 ? int64_t{1} : int64_t{-1});
    }
    for (; exponent > 0; --exponent) {
      if (__builtin_mul_overflow(out, base, &out)) run.fail("integer overflow");
    }
    return Value(out);
  }

  Value floats(Run& run, double a, double b) const {
    switch (op_) {
      case BinaryOp::kAdd:
        return Value(a + b);
      case BinaryOp::kSub:
        return Value(a - b);
      case BinaryOp::kMul:
        return Value(a * b);
      case BinaryOp::kPow:
        return Value(std::pow(a, b));
      default:
        break;
    }
    if (b == 0) run.fail("division by zero");
    if (op_ == BinaryOp::kDiv) return Value(a / b);
    if (op_ == BinaryOp::kFloorDiv) return Value(std::floor(a / b));
    const double rest = std::fmod(a, b);
    return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
  }

  BinaryOp op_;
  ExprPtr left_, right_;
};

class Concat final : public Expr {
 public:
  Concat(int line, std::vector<ExprPtr> parts) : Expr(line), parts_(std::move(parts)) {}
  Value eval(Scope& scope) const override {
    std::string out;
    for (const auto& part : parts_) append_text(scope.run(), (*part)(scope), &out);
    return Value(std::move(out));
  }

 private:
  std::vector<ExprPtr> parts_;
};

class Compare final : public Expr {
 public:
  Compare(int line, ExprPtr first, std::vector<std::pair<CompareOp, ExprPtr>> rest)
      : Expr(line), first_(std::move(first)), rest_(std::move(rest)) {}
  Value eval(Scope& scope) const override {
    Value left = (*first_)(scope);
    for (const auto& [op, expr] : rest_) {
      Value right = (*expr)(scope);
      if (!holds(scope.run(), op, left, right)) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

 private:
  static bool holds(Run& run, CompareOp op, const Value& a, const Value& b) {
    switch (op) {
      case CompareOp::kEq:
        return equal(run, a, b);
      case CompareOp::kNe:
        return !equal(run, a, b);
      case CompareOp::kLt:
        return less(run, a, b);
      case CompareOp::kGe:
        return !less(run, a, b);
      case CompareOp::kGt:
        return less(run, b, a);
      case CompareOp::kLe:
        return !less(run, b, a);
      case CompareOp::kIn:
        return contains(run, b, a);
      case CompareOp::kNotIn:
        return !contains(run, b, a);
    }
    return false;
  }
  ExprPtr first_;
  std::vector<std::pair<CompareOp, ExprPtr>> rest_;
};

bool is_loop(const Expr& expr, Scope& scope) {
  return expr.variable() != nullptr && *expr.variable() == kLoop && scope.loop() != nullptr &&
         scope.find(kLoop) == nullptr;
}

class Attribute final : public Expr {
 public:
  Attribute(int line, ExprPtr of, std::string name)
      : Expr(line), of_(std::move(of)), name_(std::move(name)) {}
  const Expr& of() const { return *of_; }
  const std::string& name() const { return name_; }

  Value eval(Scope& scope) const override {
    if (is_loop(*of_, scope)) return loop_attribute(scope, name_);
    const Value object = (*of_)(scope);
    if (is_undefined(object)) {
      const std::string* variable = of_->variable();
      scope.run().fail("line " + std::to_string(line()) + ": '" +
                       (variable != nullptr ? *variable : "a value") +
                       "' is undefined, so it has no '" + name_ + "'");
    }
    return get_attribute(scope.run(), object, name_);
  }

 private:
  ExprPtr of_;
  std::string name_;
};

class Item final : public Expr {
 public:
  Item(int line, ExprPtr of, ExprPtr key) : Expr(line), of_(std::move(of)), key_(std::move(key)) {}
  Value eval(Scope& scope) const override {
    const Value object = (*of_)(scope);
    return get_item(scope.run(), object, (*key_)(scope));
  }

 private:
  ExprPtr of_, key_;
};

class Slice final : public Expr {
 public:
  Slice(int line, ExprPtr of, ExprPtr start, ExprPtr stop, ExprPtr step)
      : Expr(line),
        of_(std::move(of)),
        start_(std::move(start)),
        stop_(std::move(stop)),
        step_(std::move(step)) {}
  Value eval(Scope& scope) const override {
    const Value object = (*of_)(scope);
    const auto start = bound(scope, start_), stop = bound(scope, stop_), step = bound(scope, step_);
    return slice(scope.run(), object, start, stop, step);
  }

 private:
  static std::optional<int64_t> bound(Scope& scope, const ExprPtr& expr) {
    if (expr == nullptr) return std::nullopt;
    const Value v = (*expr)(scope);
    if (is_none(v)) return std::nullopt;
    const auto i = as_int(v);
    if (!i) scope.run().fail("slice indices must be integers or None");
    return i;
  }
  ExprPtr of_, start_, stop_, step_;
};

class Call final : public Expr {
 public:
  Call(int line, ExprPtr function, CallArgs args)
      : Expr(line), function_(std::move(function)), args_(std::move(args)) {}
  Value eval(Scope& scope) const override { return call(scope, std::nullopt); }

  Value call(Scope& scope, std::optional<Value> caller) const {
    const auto* attribute = dynamic_cast<const Attribute*>(function_.get());
    if (is_loop(*function_, scope) || (attribute != nullptr && is_loop(attribute->of(), scope))) {
      Args args = args_.evaluate(scope);
      return call_loop(scope, attribute != nullptr ? attribute->name() : "", args);
    }
    const Value function = (*function_)(scope);
    if (!function.is_callable()) {
      const std::string* variable = function_->variable();
      const std::string name = variable != nullptr    ? *variable
                               : attribute != nullptr ? attribute->name()
                                                      : "a value";
      scope.run().fail("line " + std::to_string(line()) + ": '" + name + "' is " +
                       (is_undefined(function) ? "undefined" : "not callable"));
    }
    Args args = args_.evaluate(scope);
    if (caller) args.kwargs.emplace_back("caller", *caller);
    return call_value(scope, function, args);
  }

 private:
  ExprPtr function_;
  CallArgs args_;
};

class FilterExpr final : public Expr {
 public:
  FilterExpr(int line, ExprPtr of, Filter filter, CallArgs args)
      : Expr(line), of_(std::move(of)), filter_(filter), args_(std::move(args)) {}
  Value eval(Scope& scope) const override { return apply(scope, (*of_)(scope)); }
  // A block's filters are a chain whose innermost has no `of`.
  Value apply_to(Scope& scope, Value value) const {
    if (of_ != nullptr)
      value = static_cast<const FilterExpr&>(*of_).apply_to(scope, std::move(value));
    return apply(scope, std::move(value));
  }

 private:
  Value apply(Scope& scope, Value value) const {
    Args args = args_.evaluate(scope);
    args.args.insert(args.args.begin(), std::move(value));
    return filter_(scope, args);
  }
  ExprPtr of_;
  Filter filter_;
  CallArgs args_;
};

class TestExpr final : public Expr {
 public:
  TestExpr(int line, ExprPtr of, Test test, bool negated, CallArgs args)
      : Expr(line), of_(std::move(of)), test_(test), negated_(negated), args_(std::move(args)) {}
  Value eval(Scope& scope) const override {
    Value value = (*of_)(scope);
    Args args = args_.evaluate(scope);
    args.args.insert(args.args.begin(), std::move(value));
    return Value(test_(scope, args) != negated_);
  }

 private:
  ExprPtr of_;
  Test test_;
  bool negated_;
  CallArgs args_;
};

}  // namespace

Args CallArgs::evaluate(Scope& scope) const {
  Args out;
  for (const auto& arg : args) out.args.push_back((*arg)(scope));
  if (star != nullptr) {
    for (Value& item : items_of(scope.run(), (*star)(scope))) out.args.push_back(std::move(item));
  }
  for (const auto& [name, value] : kwargs) out.kwargs.emplace_back(name, (*value)(scope));
  if (star_star != nullptr) {
    const Value more = (*star_star)(scope);
    if (!is_dict(more)) scope.run().fail("argument after ** must be a mapping");
    for (const Value& key : items_of(scope.run(), more)) {
      if (!key.is_string()) scope.run().fail("keywords must be strings");
      out.kwargs.emplace_back(*as_string(key), get_item(scope.run(), more, key));
    }
  }
  return out;
}

Value call_value(Scope& scope, const Value& function, Args& args) {
  Run::Depth depth(scope.run());
  return function.call(scope.shared(), args);
}

Value call_with_caller(const Expr& call, Scope& scope, Value caller) {
  Run::Depth depth(scope.run());
  return static_cast<const Call&>(call).call(scope, std::move(caller));
}

bool is_call(const Expr& expr) { return dynamic_cast<const Call*>(&expr) != nullptr; }

Value apply_filter(const Expr& filter, Scope& scope, Value value) {
  return static_cast<const FilterExpr&>(filter).apply_to(scope, std::move(value));
}

ExprPtr make_literal(int line, Value value) {
  return std::make_unique<Literal>(line, std::move(value));
}
ExprPtr make_variable(int line, std::string name) {
  return std::make_unique<Variable>(line, std::move(name));
}
ExprPtr make_list_expr(int line, std::vector<ExprPtr> items) {
  return std::make_unique<List>(line, std::move(items));
}
ExprPtr make_dict_expr(int line, std::vector<std::pair<ExprPtr, ExprPtr>> items) {
  return std::make_unique<Dict>(line, std::move(items));
}
ExprPtr make_condition(int line, ExprPtr test, ExprPtr yes, ExprPtr no) {
  return std::make_unique<Condition>(line, std::move(test), std::move(yes), std::move(no));
}
ExprPtr make_and_or(int line, bool is_and, ExprPtr left, ExprPtr right) {
  return std::make_unique<AndOr>(line, is_and, std::move(left), std::move(right));
}
ExprPtr make_not(int line, ExprPtr of) { return std::make_unique<Not>(line, std::move(of)); }
ExprPtr make_sign(int line, bool negative, ExprPtr of) {
  return std::make_unique<Sign>(line, negative, std::move(of));
}
ExprPtr make_binary(int line, BinaryOp op, ExprPtr left, ExprPtr right) {
  return std::make_unique<Binary>(line, op, std::move(left), std::move(right));
}
ExprPtr make_concat(int line, std::vector<ExprPtr> parts) {
  return std::make_unique<Concat>(line, std::move(parts));
}
ExprPtr make_compare(int line, ExprPtr first, std::vector<std::pair<CompareOp, ExprPtr>> rest) {
  return std::make_unique<Compare>(line, std::move(first), std::move(rest));
}
ExprPtr make_attribute(int line, ExprPtr of, std::string name) {
  return std::make_unique<Attribute>(line, std::move(of), std::move(name));
}
ExprPtr make_item(int line, ExprPtr of, ExprPtr key) {
  return std::make_unique<Item>(line, std::move(of), std::move(key));
}
ExprPtr make_slice(int line, ExprPtr of, ExprPtr start, ExprPtr stop, ExprPtr step) {
  return std::make_unique<Slice>(
      line, std::move(of), std::move(start), std::move(stop), std::move(step));
}
ExprPtr make_call(int line, ExprPtr function, CallArgs args) {
  return std::make_unique<Call>(line, std::move(function), std::move(args));
}
ExprPtr make_filter(int line, ExprPtr of, Filter filter, CallArgs args) {
  return std::make_unique<FilterExpr>(line, std::move(of), filter, std::move(args));
}
ExprPtr make_test(int line, ExprPtr of, Test test, bool negated, CallArgs args) {
  return std::make_unique<TestExpr>(line, std::move(of), test, negated, std::move(args));
}

}  // namespace flotilla::text::jinja
