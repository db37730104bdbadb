// Errors as clients of the OpenAI API see them: one table from StatusCode to HTTP status, type,
// code and retry hints.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/status.h"

namespace flotilla::openai {

// What went wrong with a request. `param` names the field, "" if none is to blame. `code` overrides
// the table's.
struct ApiError {
  Status status;
  std::string param = {};
  std::string code = {};

  static ApiError bad_value(std::string param,
                            std::string message,
                            std::string code = "invalid_value") {
    return {invalid_argument(std::move(message)), std::move(param), std::move(code)};
  }
  // For fields that other servers know and this version does not.
  static ApiError not_in_this_version(std::string param, std::string what);
};

// A value, or what to tell the client.
template <typename T>
class ApiResult {
 public:
  ApiResult(T value) : value_(std::move(value)) {}
  ApiResult(ApiError error) : error_(std::move(error)) {}

  bool ok() const { return value_.has_value(); }
  const ApiError& error() const { return error_; }
  T& value() & {
    check(ok(), "ApiResult without a value: " + error_.status.message());
    return *value_;
  }
  T&& value() && {
    check(ok(), "ApiResult without a value: " + error_.status.message());
    return std::move(*value_);
  }

 private:
  std::optional<T> value_;
  ApiError error_;
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct ErrorResponse {
  int http_status = 500;
  std::string body;    // {"error":{"message","type","param","code"}}
  HeaderList headers;  // Retry-After, x-should-retry
};

// Internal errors come out with a fixed text: what a library said is for the log, not for the
// client.
ErrorResponse to_response(const ApiError& error);
inline ErrorResponse to_response(const Status& status) { return to_response(ApiError{status}); }
int http_status_of(StatusCode code);

// The same body for an error that HTTP itself has a status for (404 unknown path, 405, 413, 415,
// 431 …).
ErrorResponse http_error(int http_status, std::string_view message);

}  // namespace flotilla::openai
