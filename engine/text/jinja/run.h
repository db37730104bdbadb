// One rendering of a template: what it may use, and the variables in sight. Values, contexts and
// calls are minja's.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <minja/minja.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace flotilla::text::jinja {

using minja::Value;
using Args = minja::ArgumentsValue;

// Bounds of one rendering. A long conversation (thousands of messages, tens of MB) stays far below
// them.
struct Limits {
  uint64_t steps = 20'000'000;  // nodes evaluated, plus one for every 64 bytes or item worked on
  uint64_t bytes = 256 << 20;   // text and lists made, altogether
  size_t output_bytes = 64 << 20;
  size_t containers = 500'000;  // lists, dicts and namespaces made
  int depth = 700;              // nodes within nodes, calls included: about 1 MB of stack
  int value_depth = 100;        // of a value that is printed or compared
  std::chrono::milliseconds time{10'000};  // steps end a hostile template after about one second
};

enum class Failure { kNone, kRaised, kTemplate, kLimit };

class Run {
 public:
  Run(const Limits& limits, std::function<std::time_t()> clock);
  // Takes the containers apart, so that neither a cycle nor a deep value outlives it or is freed by
  // deep recursion.
  ~Run();
  Run(const Run&) = delete;

  const Limits& limits() const { return limits_; }
  std::time_t now() const { return clock_(); }

  // Counts work; throws at a bound.
  void step(uint64_t steps = 1) {
    steps_ += steps;
    if (steps_ >= next_look_) look();
  }
  void work_on(size_t bytes) { step(bytes / 64); }
  void made(size_t bytes);
  // Registers a list or dict that the template made.
  Value keep(Value container);

  // Ends the rendering with a message; what catches it is ChatTemplate. The first failure counts.
  [[noreturn]] void fail(std::string message) { fail(Failure::kTemplate, std::move(message)); }
  [[noreturn]] void fail(Failure kind, std::string message);
  Failure failure() const { return failure_; }
  const std::string& message() const { return message_; }

  class Depth {
   public:
    explicit Depth(Run& run) : run_(run) {
      if (++run_.depth_ > run_.limits_.depth) run_.too_deep();
    }
    ~Depth() { --run_.depth_; }

   private:
    Run& run_;
  };

 private:
  void look();
  [[noreturn]] void too_deep();

  const Limits limits_;
  const std::function<std::time_t()> clock_;
  const std::chrono::steady_clock::time_point deadline_;
  uint64_t steps_ = 0, next_look_ = 0, bytes_ = 0;
  int depth_ = 0;
  std::vector<Value> containers_;
  Failure failure_ = Failure::kNone;
  std::string message_;
};

// The state of a for loop, read through its variable `loop`.
struct Loop {
  const std::vector<Value>* items;
  size_t index0 = 0;
  int depth0 = 0;
  const minja::TemplateNode* node = nullptr;  // for a recursive call
  bool recursive = false;
  bool changed_before = false;
  std::vector<Value> last_changed = {};
};

// A scope of variables. Macros keep a weak pointer to the one they were made in.
class Scope : public minja::Context {
 public:
  Scope(Run& run, std::shared_ptr<Scope> parent)
      : minja::Context(Value::object()), run_(run), parent_scope_(std::move(parent)) {}

  Run& run() { return run_; }
  std::shared_ptr<Scope> shared() { return std::static_pointer_cast<Scope>(shared_from_this()); }
  std::shared_ptr<Scope> child() { return std::make_shared<Scope>(run_, shared()); }

  // Null if no scope in sight has it.
  const Value* find(const std::string& name) const;
  void assign(const std::string& name, Value value) { variables_.insert_or_assign(name, value); }
  Loop* loop() const;
  void set_loop(Loop* loop) { loop_ = loop; }

 private:
  Run& run_;
  std::shared_ptr<Scope> parent_scope_;
  std::map<std::string, Value, std::less<>> variables_;
  Loop* loop_ = nullptr;
};

}  // namespace flotilla::text::jinja
