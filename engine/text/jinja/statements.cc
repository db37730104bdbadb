#include <utility>

#include "engine/text/jinja/nodes.h"

namespace flotilla::text::jinja {
namespace {

void render_all(const Body& body, std::ostringstream& out, Scope& scope) {
  const std::shared_ptr<Scope> shared = scope.shared();
  for (const auto& node : body) node->render(out, shared);
}

void write(std::ostringstream& out, Scope& scope, std::string_view text) {
  scope.run().made(text.size());
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
}

class Text final : public Node {
 public:
  Text(int line, std::string text) : Node(line), text_(std::move(text)) {}
  void run(std::ostringstream& out, Scope& scope) const override { write(out, scope, text_); }

 private:
  std::string text_;
};

class Output final : public Node {
 public:
  Output(int line, ExprPtr expr) : Node(line), expr_(std::move(expr)) {}
  void run(std::ostringstream& out, Scope& scope) const override {
    const Value value = (*expr_)(scope);
    std::string buffer;
    write(out, scope, text_of(scope.run(), value, &buffer));
  }

 private:
  ExprPtr expr_;
};

class If final : public Node {
 public:
  If(int line, std::vector<std::pair<ExprPtr, Body>> branches, Body otherwise)
      : Node(line), branches_(std::move(branches)), otherwise_(std::move(otherwise)) {}
  void run(std::ostringstream& out, Scope& scope) const override {
    for (const auto& [test, body] : branches_) {
      if (truthy((*test)(scope))) return render_all(body, out, scope);
    }
    render_all(otherwise_, out, scope);
  }

 private:
  std::vector<std::pair<ExprPtr, Body>> branches_;
  Body otherwise_;
};

class For final : public Node {
 public:
  For(int line,
      Target target,
      ExprPtr items,
      ExprPtr condition,
      bool recursive,
      Body body,
      Body otherwise)
      : Node(line),
        target_(std::move(target)),
        items_(std::move(items)),
        condition_(std::move(condition)),
        recursive_(recursive),
        body_(std::move(body)),
        otherwise_(std::move(otherwise)) {}

  void run(std::ostringstream& out, Scope& scope) const override {
    run_over((*items_)(scope), 0, out, scope);
  }

  void run_over(const Value& over, int depth0, std::ostringstream& out, Scope& scope) const {
    std::vector<Value> items = items_of(scope.run(), over);
    if (condition_ != nullptr) {
      std::erase_if(items, [&](const Value& item) {
        const auto inner = scope.child();
        target_.assign(*inner, item);
        return !truthy((*condition_)(*inner));
      });
    }
    if (items.empty()) return render_all(otherwise_, out, scope);
    Loop loop{.items = &items, .depth0 = depth0, .node = this, .recursive = recursive_};
    for (; loop.index0 < items.size(); ++loop.index0) {
      scope.run().step();
      const auto inner = scope.child();  // what is set in an iteration ends with it
      inner->set_loop(&loop);
      target_.assign(*inner, items[loop.index0]);
      try {
        render_all(body_, out, *inner);
      } catch (const minja::LoopControlException& control) {
        inner->set_loop(nullptr);
        if (control.control_type == minja::LoopControlType::Break) break;
      }
      inner->set_loop(nullptr);  // a macro may keep the scope longer than the loop lives
    }
  }

 private:
  Target target_;
  ExprPtr items_, condition_;
  bool recursive_;
  Body body_, otherwise_;
};

class Set final : public Node {
 public:
  Set(int line, Target target, ExprPtr value)
      : Node(line), target_(std::move(target)), value_(std::move(value)) {}
  void run(std::ostringstream&, Scope& scope) const override {
    target_.assign(scope, (*value_)(scope));
  }

 private:
  Target target_;
  ExprPtr value_;
};

class SetBlock final : public Node {
 public:
  SetBlock(int line, Target target, ExprPtr filter, Body body)
      : Node(line),
        target_(std::move(target)),
        filter_(std::move(filter)),
        body_(std::move(body)) {}
  void run(std::ostringstream&, Scope& scope) const override {
    Value text(render_body(body_, *scope.child()));
    if (filter_ != nullptr) text = apply_filter(*filter_, scope, std::move(text));
    target_.assign(scope, text);
  }

 private:
  Target target_;
  ExprPtr filter_;
  Body body_;
};

class With final : public Node {
 public:
  With(int line, std::vector<std::pair<Target, ExprPtr>> values, Body body)
      : Node(line), values_(std::move(values)), body_(std::move(body)) {}
  void run(std::ostringstream& out, Scope& scope) const override {
    const auto inner = scope.child();
    for (const auto& [target, value] : values_) target.assign(*inner, (*value)(scope));
    render_all(body_, out, *inner);
  }

 private:
  std::vector<std::pair<Target, ExprPtr>> values_;
  Body body_;
};

// A function whose body is template text: macros and the callers of call blocks.
class TextFunction {
 public:
  TextFunction(std::string name, std::vector<Parameter> parameters, Body body)
      : name_(std::move(name)), parameters_(std::move(parameters)), body_(std::move(body)) {}

  Value bind(Scope& scope) const {
    // Weak: the scope holds this value, and would never be freed.
    return Value::callable([this, made_in = std::weak_ptr<Scope>(scope.shared())](
                               const std::shared_ptr<minja::Context>& context, Args& args) {
      const std::shared_ptr<Scope> outer = made_in.lock();
      if (outer == nullptr) {
        static_cast<Scope&>(*context).run().fail("macro '" + name_ +
                                                 "' is used after its loop ended");
      }
      return call(*outer, args);
    });
  }

 private:
  Value call(Scope& outer, Args& args) const {
    Run& run = outer.run();
    const auto scope = outer.child();
    if (args.args.size() > parameters_.size()) {
      run.fail("macro '" + name_ + "' takes not more than " + std::to_string(parameters_.size()) +
               " argument(s)");
    }
    for (const auto& [name, value] : args.kwargs) {
      bool known = name == "caller";
      for (const Parameter& parameter : parameters_) known = known || parameter.name == name;
      if (!known) run.fail("macro '" + name_ + "' takes no keyword argument '" + name + "'");
      scope->assign(name, value);
    }
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const auto& [name, fallback] = parameters_[i];
      if (i < args.args.size()) {
        scope->assign(name, args.args[i]);
      } else if (!args.has_named(name)) {
        scope->assign(name, fallback != nullptr ? (*fallback)(*scope) : undefined());
      }
    }
    return Value(render_body(body_, *scope));
  }

  std::string name_;
  std::vector<Parameter> parameters_;
  Body body_;
};

class Macro final : public Node {
 public:
  Macro(int line, std::string name, std::vector<Parameter> parameters, Body body)
      : Node(line),
        name_(name),
        function_(std::move(name), std::move(parameters), std::move(body)) {}
  void run(std::ostringstream&, Scope& scope) const override {
    scope.assign(name_, function_.bind(scope));
  }

 private:
  std::string name_;
  TextFunction function_;
};

class CallBlock final : public Node {
 public:
  CallBlock(int line, ExprPtr call, std::vector<Parameter> parameters, Body body)
      : Node(line),
        call_(std::move(call)),
        function_("caller", std::move(parameters), std::move(body)) {}
  void run(std::ostringstream& out, Scope& scope) const override {
    const Value result = call_with_caller(*call_, scope, function_.bind(scope));
    std::string buffer;
    write(out, scope, text_of(scope.run(), result, &buffer));
  }

 private:
  ExprPtr call_;
  TextFunction function_;
};

class FilterBlock final : public Node {
 public:
  FilterBlock(int line, ExprPtr filter, Body body)
      : Node(line), filter_(std::move(filter)), body_(std::move(body)) {}
  void run(std::ostringstream& out, Scope& scope) const override {
    const Value result = apply_filter(*filter_, scope, Value(render_body(body_, *scope.child())));
    std::string buffer;
    write(out, scope, text_of(scope.run(), result, &buffer));
  }

 private:
  ExprPtr filter_;
  Body body_;
};

class LoopControl final : public Node {
 public:
  LoopControl(int line, bool is_break) : Node(line), is_break_(is_break) {}
  void run(std::ostringstream&, Scope&) const override {
    throw minja::LoopControlException(is_break_ ? minja::LoopControlType::Break
                                                : minja::LoopControlType::Continue);
  }

 private:
  bool is_break_;
};

class Group final : public Node {
 public:
  Group(int line, Body body) : Node(line), body_(std::move(body)) {}
  void run(std::ostringstream& out, Scope& scope) const override { render_all(body_, out, scope); }

 private:
  Body body_;
};

}  // namespace

void Target::assign(Scope& scope, const Value& value) const {
  Run& run = scope.run();
  if (!parts.empty()) {
    const std::vector<Value> items = items_of(run, value);
    if (items.size() != parts.size()) {
      run.fail("cannot unpack " + std::to_string(items.size()) + " values into " +
               std::to_string(parts.size()) + " names");
    }
    for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(scope, items[i]);
  } else if (attribute.empty()) {
    scope.assign(name, value);
  } else {
    const Value* found = scope.find(name);
    if (found == nullptr || !is_namespace(*found)) {
      run.fail("cannot assign attribute '" + attribute + "' on non-namespace object '" + name +
               "'");
    }
    run.made(sizeof(Value));
    Value(*found).set(attribute, value);
  }
}

std::string render_body(const Body& body, Scope& scope) {
  std::ostringstream out;
  render_all(body, out, scope);
  return out.str();
}

Value loop_attribute(Scope& scope, const std::string& name) {
  const Loop& loop = *scope.loop();
  const auto i = static_cast<int64_t>(loop.index0);
  const auto n = static_cast<int64_t>(loop.items->size());
  if (name == "index") return Value(i + 1);
  if (name == "index0") return Value(i);
  if (name == "revindex") return Value(n - i);
  if (name == "revindex0") return Value(n - i - 1);
  if (name == "first") return Value(i == 0);
  if (name == "last") return Value(i == n - 1);
  if (name == "length") return Value(n);
  if (name == "depth") return Value(int64_t{loop.depth0} + 1);
  if (name == "depth0") return Value(int64_t{loop.depth0});
  if (name == "previtem") return i > 0 ? (*loop.items)[loop.index0 - 1] : undefined();
  if (name == "nextitem") return i + 1 < n ? (*loop.items)[loop.index0 + 1] : undefined();
  return undefined();
}

Value call_loop(Scope& scope, const std::string& method, Args& args) {
  Run& run = scope.run();
  Loop& loop = *scope.loop();
  if (method == "cycle") {
    if (args.args.empty()) run.fail("no items for cycling given");
    return args.args[loop.index0 % args.args.size()];
  }
  if (method == "changed") {
    const bool changed = !loop.changed_before || loop.last_changed.size() != args.args.size() ||
                         !equal(run, Value::array(loop.last_changed), Value::array(args.args));
    loop.changed_before = true;
    loop.last_changed = args.args;
    return Value(changed);
  }
  if (!method.empty()) run.fail("loop has no method '" + method + "'");
  if (!loop.recursive || args.args.size() != 1) {
    run.fail("loop() needs a loop marked recursive and one list");
  }
  Run::Depth depth(run);
  std::ostringstream out;
  static_cast<const For*>(loop.node)->run_over(args.args[0], loop.depth0 + 1, out, scope);
  return Value(out.str());
}

NodePtr make_text(int line, std::string text) {
  return std::make_unique<Text>(line, std::move(text));
}
NodePtr make_output(int line, ExprPtr expr) {
  return std::make_unique<Output>(line, std::move(expr));
}
NodePtr make_if(int line, std::vector<std::pair<ExprPtr, Body>> branches, Body otherwise) {
  return std::make_unique<If>(line, std::move(branches), std::move(otherwise));
}
NodePtr make_for(int line,
                 Target target,
                 ExprPtr items,
                 ExprPtr condition,
                 bool recursive,
                 Body body,
                 Body otherwise) {
  return std::make_unique<For>(line,
                               std::move(target),
                               std::move(items),
                               std::move(condition),
                               recursive,
                               std::move(body),
                               std::move(otherwise));
}
NodePtr make_set(int line, Target target, ExprPtr value) {
  return std::make_unique<Set>(line, std::move(target), std::move(value));
}
NodePtr make_set_block(int line, Target target, ExprPtr filter, Body body) {
  return std::make_unique<SetBlock>(line, std::move(target), std::move(filter), std::move(body));
}
NodePtr make_with(int line, std::vector<std::pair<Target, ExprPtr>> values, Body body) {
  return std::make_unique<With>(line, std::move(values), std::move(body));
}
NodePtr make_macro(int line, std::string name, std::vector<Parameter> parameters, Body body) {
  return std::make_unique<Macro>(line, std::move(name), std::move(parameters), std::move(body));
}
NodePtr make_call_block(int line, ExprPtr call, std::vector<Parameter> parameters, Body body) {
  return std::make_unique<CallBlock>(line, std::move(call), std::move(parameters), std::move(body));
}
NodePtr make_filter_block(int line, ExprPtr filter, Body body) {
  return std::make_unique<FilterBlock>(line, std::move(filter), std::move(body));
}
NodePtr make_loop_control(int line, bool is_break) {
  return std::make_unique<LoopControl>(line, is_break);
}
NodePtr make_group(int line, Body body) { return std::make_unique<Group>(line, std::move(body)); }

}  // namespace flotilla::text::jinja
