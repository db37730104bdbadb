#include "common/status.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace flotilla {

std::string_view to_string(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return "ok";
    case StatusCode::kInvalidArgument:
      return "invalid argument";
    case StatusCode::kNotFound:
      return "not found";
    case StatusCode::kUnauthenticated:
      return "unauthenticated";
    case StatusCode::kFailedPrecondition:
      return "failed precondition";
    case StatusCode::kResourceExhausted:
      return "resource exhausted";
    case StatusCode::kUnavailable:
      return "unavailable";
    case StatusCode::kDeadlineExceeded:
      return "deadline exceeded";
    case StatusCode::kCancelled:
      return "cancelled";
    case StatusCode::kAborted:
      return "aborted";
    case StatusCode::kUnimplemented:
      return "not in this version";
    case StatusCode::kInternal:
      return "internal error";
  }
  return "unknown";
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  return std::string(flotilla::to_string(code_)) + ": " + message_;
}

Status errno_status(std::string_view what) {
  const int error = errno;
  char buffer[128];
  return internal_error(std::string(what) + ": " + strerror_r(error, buffer, sizeof buffer));
}

void check_failed(std::string_view message, SourceLocation where) {
  std::fprintf(stderr,
               "check failed at %s:%d: %.*s\n",
               where.file,
               where.line,
               static_cast<int>(message.size()),
               message.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace flotilla
