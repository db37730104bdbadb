// Errors that can happen: returned, never thrown across a folder or a thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/check.h"

namespace flotilla {

enum class StatusCode {
  kOk,
  kInvalidArgument,     // the caller's input is wrong; the message says field, value seen, range
  kNotFound,            // no such model, file, rank
  kUnauthenticated,     // key or secret missing or wrong
  kFailedPrecondition,  // right input at the wrong time (wrong epoch, refused handshake)
  kResourceExhausted,   // a bounded thing is full: try again later
  kUnavailable,         // peer gone, draining, not ready: try elsewhere or later
  kDeadlineExceeded,    // a wait ended by its deadline
  kCancelled,           // the one who asked does not want it any more
  kAborted,             // the step's epoch ended; the work is done again in the next
  kUnimplemented,       // known, but not in this version
  kInternal,            // our fault
};

std::string_view to_string(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // "invalid argument: message", for logs.
  std::string to_string() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status ok_status() { return {}; }
inline Status invalid_argument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status not_found(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status unauthenticated(std::string m) {
  return {StatusCode::kUnauthenticated, std::move(m)};
}
inline Status failed_precondition(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
inline Status resource_exhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status deadline_exceeded(std::string m) {
  return {StatusCode::kDeadlineExceeded, std::move(m)};
}
inline Status cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status aborted(std::string m) { return {StatusCode::kAborted, std::move(m)}; }
inline Status unimplemented(std::string m) { return {StatusCode::kUnimplemented, std::move(m)}; }
inline Status internal_error(std::string m) { return {StatusCode::kInternal, std::move(m)}; }
// "what: strerror(errno)" as kInternal; call it before anything else can change errno.
Status errno_status(std::string_view what);

// A value, or why there is none. Access to value() of an error is a check failure.
template <typename T>
class [[nodiscard]] StatusOr {
 public:
  StatusOr(T value) : value_(std::move(value)) {}
  StatusOr(Status status) : status_(std::move(status)) {
    check(!status_.ok(), "StatusOr from an OK status needs a value");
  }

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() & {
    check(ok(), status_.message());
    return *value_;
  }
  const T& value() const& {
    check(ok(), status_.message());
    return *value_;
  }
  T&& value() && {
    check(ok(), status_.message());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace flotilla

// Leaves the function with the status if it is an error.
#define FLOTILLA_RETURN_IF_ERROR(expression)                                      \
  do {                                                                            \
    if (::flotilla::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)
