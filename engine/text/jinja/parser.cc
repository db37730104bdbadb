#include "engine/text/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "engine/text/jinja/lexer.h"

namespace flotilla::text::jinja {
namespace {

using Kind = Token::Kind;

constexpr int kMaxNesting = 100;  // of expressions within expressions and blocks within blocks
constexpr int kMaxLinks = 2000;

// Within the parser, errors travel as this exception; parse_template() turns it into a Status.
struct ParseError {
  int line;
  std::string message;
};

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  ParsedTemplate run() {
    Body body = statements({});
    if (!at(Kind::kEnd)) fail("unexpected end of a block");
    return {make_group(1, std::move(body)), std::move(variables_)};
  }

 private:
  class Nesting {
   public:
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) parser_.fail("nested too deep");
    }
    ~Nesting() { --parser_.nesting_; }

   private:
    Parser& parser_;
  };
  // Counts what makes the tree of one tag higher without nesting: operators, filters and attributes
  // in a row.
  void link() {
    if (++links_ > kMaxLinks) fail("too many operators in one tag");
  }

  const Token& now() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  int line() const { return now().line; }
  bool at(Kind kind) const { return now().kind == kind; }
  bool at_op(std::string_view op) const { return at(Kind::kOperator) && now().text == op; }
  bool at_name(std::string_view name) const { return at(Kind::kName) && now().text == name; }
  void advance() {
    if (pos_ + 1 < tokens_.size()) ++pos_;
  }
  bool skip_op(std::string_view op) {
    const bool found = at_op(op);
    if (found) advance();
    return found;
  }
  bool skip_name(std::string_view name) {
    const bool found = at_name(name);
    if (found) advance();
    return found;
  }
  [[noreturn]] void fail(std::string message) const {
    throw ParseError{line(), std::move(message)};
  }
  std::string shown() const {
    switch (now().kind) {
      case Kind::kEnd:
        return "end of template";
      case Kind::kVariableEnd:
        return "}}";
      case Kind::kBlockEnd:
        return "%}";
      default:
        return now().text.substr(0, 40);
    }
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail("expected '" + std::string(op) + "', got '" + shown() + "'");
  }
  void expect(Kind kind, std::string_view what) {
    if (!at(kind)) fail("expected '" + std::string(what) + "', got '" + shown() + "'");
    advance();
  }
  std::string expect_any_name() {
    if (!at(Kind::kName)) fail("expected a name, got '" + shown() + "'");
    std::string name = now().text;
    advance();
    return name;
  }

  // Statements until a block of one of these names, which is left to be read (at its name), or the
  // end.
  Body statements(std::initializer_list<std::string_view> ends) {
    Nesting nesting(*this);
    Body body;
    while (!at(Kind::kEnd)) {
      const int at_line = line();
      links_ = 0;
      if (at(Kind::kData)) {
        body.push_back(make_text(at_line, now().text));
        advance();
      } else if (at(Kind::kVariableBegin)) {
        advance();
        body.push_back(make_output(at_line, tuple()));
        expect(Kind::kVariableEnd, "}}");
      } else {
        advance();  // {%
        if (!at(Kind::kName)) fail("expected a block's name, got '" + shown() + "'");
        if (std::ranges::find(ends, std::string_view(now().text)) != ends.end()) return body;
        body.push_back(statement(at_line));
      }
    }
    if (ends.size() > 0) fail("a block has no '" + std::string(*(ends.end() - 1)) + "'");
    return body;
  }
  // The rest of a block: `{% … %} body {% end %}`.
  Body block(std::string_view end) {
    expect(Kind::kBlockEnd, "%}");
    Body body = statements({end});
    advance();
    expect(Kind::kBlockEnd, "%}");
    return body;
  }

  NodePtr statement(int at_line) {
    const std::string name = expect_any_name();
    if (name == "if") return if_block(at_line);
    if (name == "for") return for_block(at_line);
    if (name == "set") return set_block(at_line);
    if (name == "with") return with_block(at_line);
    if (name == "macro") {
      std::string macro = expect_any_name();
      auto parameters = signature();
      return make_macro(
          at_line, std::move(macro), std::move(parameters), outside_loops("endmacro"));
    }
    if (name == "call") {
      auto parameters = at_op("(") ? signature() : std::vector<Parameter>();
      ExprPtr call = expression();
      if (!is_call(*call)) fail("expected a call");
      return make_call_block(
          at_line, std::move(call), std::move(parameters), outside_loops("endcall"));
    }
    if (name == "filter") {
      ExprPtr filters = filter_chain(nullptr, true);
      return make_filter_block(at_line, std::move(filters), outside_loops("endfilter"));
    }
    if (name == "generation") return make_group(at_line, block("endgeneration"));
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail("'" + name + "' outside of a loop");
      expect(Kind::kBlockEnd, "%}");
      return make_loop_control(at_line, name == "break");
    }
    fail(name.starts_with("end") || name.starts_with("el") ? "unexpected '" + name + "'"
                                                           : "unknown block '" + name + "'");
  }

  Body outside_loops(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body body = block(end);
    loops_ = loops;
    return body;
  }

  NodePtr if_block(int at_line) {
    std::vector<std::pair<ExprPtr, Body>> branches;
    Body otherwise;
    while (true) {
      ExprPtr test = tuple(false);
      expect(Kind::kBlockEnd, "%}");
      branches.emplace_back(std::move(test), statements({"elif", "else", "endif"}));
      if (skip_name("elif")) continue;
      if (skip_name("else")) {
        expect(Kind::kBlockEnd, "%}");
        otherwise = statements({"endif"});
      }
      advance();
      expect(Kind::kBlockEnd, "%}");
      return make_if(at_line, std::move(branches), std::move(otherwise));
    }
  }

  NodePtr for_block(int at_line) {
    Target loop_target = target(false);
    if (!skip_name("in")) fail("expected 'in', got '" + shown() + "'");
    ExprPtr items = tuple(false);
    ExprPtr condition;
    if (skip_name("if")) condition = expression();
    const bool recursive = skip_name("recursive");
    expect(Kind::kBlockEnd, "%}");
    ++loops_;
    Body body = statements({"else", "endfor"});
    --loops_;
    Body otherwise;
    if (skip_name("else")) {
      expect(Kind::kBlockEnd, "%}");
      otherwise = statements({"endfor"});
    }
    advance();
    expect(Kind::kBlockEnd, "%}");
    return make_for(at_line,
                    std::move(loop_target),
                    std::move(items),
                    std::move(condition),
                    recursive,
                    std::move(body),
                    std::move(otherwise));
  }

  NodePtr set_block(int at_line) {
    Target to = target(true);
    if (skip_op("=")) {
      ExprPtr value = tuple();
      expect(Kind::kBlockEnd, "%}");
      return make_set(at_line, std::move(to), std::move(value));
    }
    ExprPtr filters;
    if (at_op("|")) filters = filter_chain(nullptr, false);
    return make_set_block(at_line, std::move(to), std::move(filters), outside_loops("endset"));
  }

  NodePtr with_block(int at_line) {
    std::vector<std::pair<Target, ExprPtr>> values;
    while (!at(Kind::kBlockEnd)) {
      if (!values.empty()) expect_op(",");
      Target to = target(false);
      expect_op("=");
      values.emplace_back(std::move(to), expression());
    }
    return make_with(at_line, std::move(values), block("endwith"));
  }

  // A name, name.attribute (if allowed), or several with commas, perhaps in parentheses.
  Target target(bool attributes) {
    Nesting nesting(*this);
    std::vector<Target> parts;
    bool comma = false;
    do {
      if (!parts.empty() && !at(Kind::kName) && !at_op("(")) break;  // a comma at the end
      if (skip_op("(")) {
        parts.push_back(target(attributes));
        expect_op(")");
      } else {
        Target one;
        one.name = expect_any_name();
        for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
          if (one.name == word) fail("cannot assign to '" + one.name + "'");
        }
        if (attributes && skip_op(".")) one.attribute = expect_any_name();
        parts.push_back(std::move(one));
      }
      comma = comma || at_op(",");
    } while (skip_op(","));
    if (parts.size() == 1 && !comma) return std::move(parts[0]);
    Target all;
    all.parts = std::move(parts);
    return all;
  }

  std::vector<Parameter> signature() {
    std::vector<Parameter> parameters;
    expect_op("(");
    while (!at_op(")")) {
      if (!parameters.empty()) expect_op(",");
      if (at_op(")")) break;
      Parameter parameter;
      parameter.name = expect_any_name();
      if (skip_op("=")) parameter.fallback = expression();
      parameters.push_back(std::move(parameter));
    }
    advance();
    return parameters;
  }

  // One expression, or several with commas as a list.
  ExprPtr tuple(bool conditions = true) {
    const int at_line = line();
    std::vector<ExprPtr> items;
    bool comma = false;
    while (true) {
      const bool ends = at(Kind::kVariableEnd) || at(Kind::kBlockEnd) || at_op(")");
      if (ends && comma) break;
      items.push_back(conditions ? expression() : logical_or());
      if (!skip_op(",")) break;
      comma = true;
    }
    if (!comma) return std::move(items[0]);
    return make_list_expr(at_line, std::move(items));
  }

  ExprPtr expression() {
    Nesting nesting(*this);
    ExprPtr value = logical_or();
    while (at_name("if")) {
      const int at_line = line();
      advance();
      link();
      ExprPtr test = logical_or();
      ExprPtr otherwise;
      if (skip_name("else")) otherwise = expression();
      value = make_condition(at_line, std::move(test), std::move(value), std::move(otherwise));
    }
    return value;
  }

  ExprPtr logical_or() {
    ExprPtr left = logical_and();
    while (at_name("or")) {
      const int at_line = line();
      advance();
      link();
      ExprPtr right = logical_and();
      left = make_and_or(at_line, false, std::move(left), std::move(right));
    }
    return left;
  }

  ExprPtr logical_and() {
    ExprPtr left = logical_not();
    while (at_name("and")) {
      const int at_line = line();
      advance();
      link();
      ExprPtr right = logical_not();
      left = make_and_or(at_line, true, std::move(left), std::move(right));
    }
    return left;
  }

  ExprPtr logical_not() {
    if (!at_name("not")) return comparison();
    Nesting nesting(*this);
    const int at_line = line();
    advance();
    return make_not(at_line, logical_not());
  }

  ExprPtr comparison() {
    static constexpr std::pair<std::string_view, CompareOp> kOps[] = {{"==", CompareOp::kEq},
                                                                      {"!=", CompareOp::kNe},
                                                                      {"<", CompareOp::kLt},
                                                                      {"<=", CompareOp::kLe},
                                                                      {">", CompareOp::kGt},
                                                                      {">=", CompareOp::kGe}};
    const int at_line = line();
    ExprPtr first = sum();
    std::vector<std::pair<CompareOp, ExprPtr>> rest;
    while (true) {
      const auto* op = std::ranges::find_if(kOps, [this](const auto& o) { return at_op(o.first); });
      if (op != std::end(kOps)) {
        advance();
        rest.emplace_back(op->second, sum());
      } else if (skip_name("in")) {
        rest.emplace_back(CompareOp::kIn, sum());
      } else if (at_name("not") && ahead().kind == Kind::kName && ahead().text == "in") {
        advance();
        advance();
        rest.emplace_back(CompareOp::kNotIn, sum());
      } else {
        break;
      }
    }
    if (rest.empty()) return first;
    return make_compare(at_line, std::move(first), std::move(rest));
  }

  using Operators = std::initializer_list<std::pair<std::string_view, BinaryOp>>;
  ExprPtr binary(Operators ops, ExprPtr (Parser::*operand)()) {
    ExprPtr left = (this->*operand)();
    while (true) {
      const auto* op = std::ranges::find_if(ops, [this](const auto& o) { return at_op(o.first); });
      if (op == ops.end()) return left;
      const int at_line = line();
      advance();
      link();
      ExprPtr right = (this->*operand)();
      left = make_binary(at_line, op->second, std::move(left), std::move(right));
    }
  }
  ExprPtr sum() { return binary({{"+", BinaryOp::kAdd}, {"-", BinaryOp::kSub}}, &Parser::concat); }
  ExprPtr concat() {
    const int at_line = line();
    std::vector<ExprPtr> parts;
    do {
      parts.push_back(product());
    } while (skip_op("~"));
    if (parts.size() == 1) return std::move(parts[0]);
    return make_concat(at_line, std::move(parts));
  }
  ExprPtr product() {
    return binary({{"*", BinaryOp::kMul},
                   {"/", BinaryOp::kDiv},
                   {"//", BinaryOp::kFloorDiv},
                   {"%", BinaryOp::kMod}},
                  &Parser::power);
  }
  ExprPtr power() { return binary({{"**", BinaryOp::kPow}}, &Parser::filtered_unary); }
  ExprPtr filtered_unary() { return unary(true); }

  ExprPtr unary(bool with_filters) {
    Nesting nesting(*this);
    const int at_line = line();
    ExprPtr value;
    if (at_op("-") || at_op("+")) {
      const bool negative = at_op("-");
      advance();
      value = make_sign(at_line, negative, unary(false));
    } else {
      value = primary();
    }
    value = postfix(std::move(value));
    while (with_filters) {
      link();
      if (at_op("|")) {
        value = filter_chain(std::move(value), false);
      } else if (at_name("is")) {
        value = test(std::move(value));
      } else if (at_op("(")) {
        const int call_line = line();
        value = make_call(call_line, std::move(value), call_args());
      } else {
        break;
      }
    }
    return value;
  }

  ExprPtr primary() {
    const int at_line = line();
    const Token token = now();
    switch (token.kind) {
      case Kind::kName: {
        advance();
        if (token.text == "true" || token.text == "True") return make_literal(at_line, Value(true));
        if (token.text == "false" || token.text == "False") {
          return make_literal(at_line, Value(false));
        }
        if (token.text == "none" || token.text == "None") return make_literal(at_line, Value());
        variables_.insert(token.text);
        return make_variable(at_line, token.text);
      }
      case Kind::kString: {
        std::string text;
        for (; at(Kind::kString); advance()) text += now().text;
        return make_literal(at_line, Value(std::move(text)));
      }
      case Kind::kInteger: {
        advance();
        int64_t value = 0;
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
          fail("the number " + token.text + " is too large");
        }
        return make_literal(at_line, Value(value));
      }
      case Kind::kFloat: {
        advance();
        double value = 0;
        std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
        return make_literal(at_line, Value(value));
      }
      default:
        break;
    }
    if (skip_op("(")) {
      if (skip_op(")")) return make_list_expr(at_line, {});
      ExprPtr value = tuple();
      expect_op(")");
      return value;
    }
    if (skip_op("[")) {
      std::vector<ExprPtr> items;
      while (!at_op("]")) {
        if (!items.empty()) expect_op(",");
        if (at_op("]")) break;
        items.push_back(expression());
      }
      advance();
      return make_list_expr(at_line, std::move(items));
    }
    if (skip_op("{")) {
      std::vector<std::pair<ExprPtr, ExprPtr>> items;
      while (!at_op("}")) {
        if (!items.empty()) expect_op(",");
        if (at_op("}")) break;
        ExprPtr key = expression();
        expect_op(":");
        items.emplace_back(std::move(key), expression());
      }
      advance();
      return make_dict_expr(at_line, std::move(items));
    }
    fail("unexpected '" + shown() + "'");
  }

  ExprPtr postfix(ExprPtr value) {
    while (true) {
      link();
      const int at_line = line();
      if (skip_op(".")) {
        if (at(Kind::kInteger)) {
          value = make_item(at_line, std::move(value), primary());
        } else {
          value = make_attribute(at_line, std::move(value), expect_any_name());
        }
      } else if (skip_op("[")) {
        value = subscript(at_line, std::move(value));
        expect_op("]");
      } else if (at_op("(")) {
        value = make_call(at_line, std::move(value), call_args());
      } else {
        return value;
      }
    }
  }

  ExprPtr subscript(int at_line, ExprPtr value) {
    ExprPtr start, stop, step;
    if (!at_op(":")) start = expression();
    if (!skip_op(":")) return make_item(at_line, std::move(value), std::move(start));
    if (!at_op(":") && !at_op("]")) stop = expression();
    if (skip_op(":") && !at_op("]")) step = expression();
    return make_slice(
        at_line, std::move(value), std::move(start), std::move(stop), std::move(step));
  }

  CallArgs call_args() {
    CallArgs out;
    expect_op("(");
    bool first = true;
    while (!at_op(")")) {
      if (!first) expect_op(",");
      first = false;
      if (at_op(")")) break;
      if (skip_op("*")) {
        if (out.star != nullptr) fail("only one *argument is supported");
        out.star = expression();
      } else if (skip_op("**")) {
        if (out.star_star != nullptr) fail("only one **argument is supported");
        out.star_star = expression();
      } else if (at(Kind::kName) && ahead().kind == Kind::kOperator && ahead().text == "=") {
        std::string name = expect_any_name();
        advance();
        out.kwargs.emplace_back(std::move(name), expression());
      } else {
        if (!out.kwargs.empty()) fail("a positional argument follows a keyword argument");
        out.args.push_back(expression());
      }
    }
    advance();
    return out;
  }

  // "|name(args)|name…"; `inline_first`: the first has no "|" in front.
  ExprPtr filter_chain(ExprPtr value, bool inline_first) {
    while (inline_first || at_op("|")) {
      link();
      const int at_line = line();
      if (!inline_first) advance();
      inline_first = false;
      const std::string name = expect_any_name();
      const Filter filter = find_filter(name);
      if (filter == nullptr) fail("unknown filter '" + name + "'");
      CallArgs args = at_op("(") ? call_args() : CallArgs();
      value = make_filter(at_line, std::move(value), filter, std::move(args));
    }
    return value;
  }

  ExprPtr test(ExprPtr value) {
    const int at_line = line();
    advance();  // is
    const bool negated = skip_name("not");
    const std::string name = expect_any_name();
    const Test function = find_test(name);
    if (function == nullptr) fail("unknown test '" + name + "'");
    CallArgs args;
    const bool has_operand =
        (at(Kind::kName) && !at_name("else") && !at_name("or") && !at_name("and") &&
         !at_name("if") && !at_name("in") && !at_name("not") && !at_name("recursive")) ||
        at(Kind::kString) || at(Kind::kInteger) || at(Kind::kFloat) || at_op("[") || at_op("{");
    if (at_op("(")) {
      args = call_args();
    } else if (has_operand) {
      if (at_name("is")) fail("tests cannot be chained with 'is'");
      args.args.push_back(postfix(primary()));
    }
    return make_test(at_line, std::move(value), function, negated, std::move(args));
  }

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
  int links_ = 0;
  std::set<std::string> variables_;
};

}  // namespace

StatusOr<ParsedTemplate> parse_template(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return invalid_argument("the chat template has " + std::to_string(source.size()) +
                            " bytes; at most " + std::to_string(kMaxTemplateBytes) + " are taken");
  }
  auto tokens = tokenize_template(source);
  if (!tokens.ok()) return invalid_argument("chat template, " + tokens.status().message());
  try {
    return Parser(std::move(*tokens)).run();
  } catch (const ParseError& error) {
    return invalid_argument("chat template, line " + std::to_string(error.line) + ": " +
                            error.message);
  }
}

}  // namespace flotilla::text::jinja
