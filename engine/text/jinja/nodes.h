// The tree of a parsed template. Nodes are minja's kinds of node with Jinja's exact meaning and
// counted work; minja's own nodes do without either.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja/run.h"
#include "engine/text/jinja/values.h"

namespace flotilla::text::jinja {

class Expr : public minja::Expression {
 public:
  explicit Expr(int line) : minja::Expression(minja::Location{}), line_(line) {}

  Value operator()(Scope& scope) const {
    Run::Depth depth(scope.run());
    scope.run().step();
    return eval(scope);
  }
  int line() const { return line_; }
  // The variable's name if this is just a variable.
  virtual const std::string* variable() const { return nullptr; }

 protected:
  virtual Value eval(Scope& scope) const = 0;
  Value do_evaluate(const std::shared_ptr<minja::Context>& context) const final {
    return (*this)(static_cast<Scope&>(*context));
  }

 private:
  int line_;
};
using ExprPtr = std::unique_ptr<Expr>;

class Node : public minja::TemplateNode {
 public:
  explicit Node(int line) : minja::TemplateNode(minja::Location{}), line_(line) {}
  int line() const { return line_; }

 protected:
  virtual void run(std::ostringstream& out, Scope& scope) const = 0;
  void do_render(std::ostringstream& out,
                 const std::shared_ptr<minja::Context>& context) const final {
    Scope& scope = static_cast<Scope&>(*context);
    Run::Depth depth(scope.run());
    scope.run().step();
    run(out, scope);
  }

 private:
  int line_;
};
using NodePtr = std::unique_ptr<Node>;
using Body = std::vector<NodePtr>;

// Where a value is assigned: a name, a namespace's attribute or a list of targets.
struct Target {
  std::string name;
  std::string attribute;      // not empty: name.attribute
  std::vector<Target> parts;  // not empty: a tuple
  void assign(Scope& scope, const Value& value) const;
};

struct CallArgs {
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> kwargs;
  ExprPtr star, star_star;  // *args, **kwargs; may be null
  Args evaluate(Scope& scope) const;
};

// A filter or test, looked up when the template is parsed.
using Filter = Value (*)(Scope& scope, Args& args);  // args.args[0]: the value
using Test = bool (*)(Scope& scope, Args& args);
Filter find_filter(std::string_view name);  // null: there is none
Test find_test(std::string_view name);

// Calls a function value.
Value call_value(Scope& scope, const Value& function, Args& args);

enum class BinaryOp { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class CompareOp { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

// expressions.cc
ExprPtr make_literal(int line, Value value);
ExprPtr make_variable(int line, std::string name);
ExprPtr make_list_expr(int line, std::vector<ExprPtr> items);
ExprPtr make_dict_expr(int line, std::vector<std::pair<ExprPtr, ExprPtr>> items);
ExprPtr make_condition(int line, ExprPtr test, ExprPtr yes, ExprPtr no);  // no may be null
ExprPtr make_and_or(int line, bool is_and, ExprPtr left, ExprPtr right);
ExprPtr make_not(int line, ExprPtr of);
ExprPtr make_sign(int line, bool negative, ExprPtr of);
ExprPtr make_binary(int line, BinaryOp op, ExprPtr left, ExprPtr right);
ExprPtr make_concat(int line, std::vector<ExprPtr> parts);
ExprPtr make_compare(int line, ExprPtr first, std::vector<std::pair<CompareOp, ExprPtr>> rest);
ExprPtr make_attribute(int line, ExprPtr of, std::string name);
ExprPtr make_item(int line, ExprPtr of, ExprPtr key);
ExprPtr make_slice(int line, ExprPtr of, ExprPtr start, ExprPtr stop, ExprPtr step);
ExprPtr make_call(int line, ExprPtr function, CallArgs args);
ExprPtr make_filter(int line,
                    ExprPtr of,
                    Filter filter,
                    CallArgs args);  // of null: a filter block's text
ExprPtr make_test(int line, ExprPtr of, Test test, bool negated, CallArgs args);
// Evaluates a call with one more keyword argument, `caller`.
Value call_with_caller(const Expr& call, Scope& scope, Value caller);
bool is_call(const Expr& expr);
// Applies a filter made with a null `of` to a value.
Value apply_filter(const Expr& filter, Scope& scope, Value value);

// statements.cc
struct Parameter {
  std::string name;
  ExprPtr fallback;  // may be null
};
NodePtr make_text(int line, std::string text);
NodePtr make_output(int line, ExprPtr expr);
NodePtr make_if(int line, std::vector<std::pair<ExprPtr, Body>> branches, Body otherwise);
NodePtr make_for(int line,
                 Target target,
                 ExprPtr items,
                 ExprPtr condition,
                 bool recursive,
                 Body body,
                 Body otherwise);
NodePtr make_set(int line, Target target, ExprPtr value);
NodePtr make_set_block(int line, Target target, ExprPtr filter, Body body);  // filter may be null
NodePtr make_with(int line, std::vector<std::pair<Target, ExprPtr>> values, Body body);
NodePtr make_macro(int line, std::string name, std::vector<Parameter> parameters, Body body);
NodePtr make_call_block(int line, ExprPtr call, std::vector<Parameter> parameters, Body body);
NodePtr make_filter_block(int line, ExprPtr filter, Body body);
NodePtr make_loop_control(int line, bool is_break);
NodePtr make_group(int line, Body body);
std::string render_body(const Body& body, Scope& scope);
// The value of `loop.name`, or of loop itself called.
Value loop_attribute(Scope& scope, const std::string& name);
Value call_loop(Scope& scope, const std::string& method, Args& args);

}  // namespace flotilla::text::jinja
