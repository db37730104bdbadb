#include "engine/text/jinja/run.h"

#include <stdexcept>
#include <utility>

namespace flotilla::text::jinja {

Run::Run(const Limits& limits, std::function<std::time_t()> clock)
    : limits_(limits),
      clock_(std::move(clock)),
      deadline_(std::chrono::steady_clock::now() + limits.time) {}

Run::~Run() {
  for (Value& container : containers_) {
    if (container.is_array()) {
      while (container.size() > 0) container.pop(Value());
    } else {
      for (const Value& key : container.keys()) container.pop(key);
    }
  }
}

void Run::look() {
  if (steps_ > limits_.steps) {
    fail(Failure::kLimit,
         "the chat template took more than " + std::to_string(limits_.steps) + " steps");
  }
  if (std::chrono::steady_clock::now() > deadline_) {
    fail(Failure::kLimit,
         "the chat template took more than " + std::to_string(limits_.time.count()) + " ms");
  }
  next_look_ = steps_ + 4096;
}

void Run::made(size_t bytes) {
  bytes_ += bytes;
  if (bytes_ > limits_.bytes) {
    fail(Failure::kLimit,
         "the chat template made more than " + std::to_string(limits_.bytes) + " bytes of values");
  }
  work_on(bytes);
}

Value Run::keep(Value container) {
  made(64 + container.size() * sizeof(Value));
  if (containers_.size() >= limits_.containers) {
    fail(Failure::kLimit,
         "the chat template made more than " + std::to_string(limits_.containers) + " lists");
  }
  containers_.push_back(container);
  return container;
}

void Run::fail(Failure kind, std::string message) {
  if (failure_ == Failure::kNone) {
    failure_ = kind;
    message_ = std::move(message);
  }
  throw std::runtime_error("rendering failed");
}

void Run::too_deep() {
  --depth_;  // the guard that counted is not constructed
  fail(Failure::kLimit,
       "the chat template nests or calls more than " + std::to_string(limits_.depth) +
           " levels deep");
}

const Value* Scope::find(const std::string& name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_scope_.get()) {
    const auto it = scope->variables_.find(name);
    if (it != scope->variables_.end()) return &it->second;
  }
  return nullptr;
}

Loop* Scope::loop() const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_scope_.get()) {
    if (scope->loop_ != nullptr) return scope->loop_;
  }
  return nullptr;
}

}  // namespace flotilla::text::jinja
