#include "api_server/openai/error.h"

#include "common/json.h"

namespace flotilla::openai {
namespace {

constexpr std::string_view kInternalMessage =
    "The server failed to answer this request. The server's log has the reason under the request's "
    "id.";

// How clients of the official libraries behave on a status: 408, 409, 429 and all from 500 on are
// sent again unless x-should-retry says no (openai-python, _base_client.py).
enum class Retry {
  kNo,
  kNever,
  kSoon
};  // a client would not · would, but must not · may, after Retry-After

struct Row {
  StatusCode code;
  int http_status;
  std::string_view type;
  std::string_view error_code;
  Retry retry;
};

constexpr Row kTable[] = {
    {StatusCode::kInvalidArgument, 400, "invalid_request_error", "invalid_value", Retry::kNo},
    {StatusCode::kUnauthenticated, 401, "authentication_error", "invalid_api_key", Retry::kNo},
    {StatusCode::kNotFound, 404, "invalid_request_error", "not_found", Retry::kNo},
    {StatusCode::kDeadlineExceeded, 408, "timeout_error", "timeout", Retry::kSoon},
    {StatusCode::kResourceExhausted, 429, "rate_limit_error", "rate_limit_exceeded", Retry::kSoon},
    {StatusCode::kCancelled, 499, "request_cancelled", "request_cancelled", Retry::kNo},
    {StatusCode::kUnimplemented, 501, "not_implemented_error", "not_implemented", Retry::kNever},
    {StatusCode::kUnavailable,
     503,
     "service_unavailable_error",
     "service_unavailable",
     Retry::kSoon},
    {StatusCode::kFailedPrecondition,
     503,
     "service_unavailable_error",
     "service_unavailable",
     Retry::kSoon},
    {StatusCode::kAborted, 503, "service_unavailable_error", "service_unavailable", Retry::kSoon},
    {StatusCode::kInternal, 500, "internal_error", "internal_error", Retry::kNever},
};

const Row& row_of(StatusCode code) {
  for (const Row& row : kTable) {
    if (row.code == code) return row;
  }
  return kTable[std::size(kTable) - 1];
}

std::string error_body(std::string_view message,
                       std::string_view type,
                       std::string_view param,
                       std::string_view code) {
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.key("error");
  json.begin_object();
  json.field("message", message);
  json.field("type", type);
  json.key("param");
  if (param.empty()) {
    json.null();
  } else {
    json.value(param);
  }
  json.key("code");
  if (code.empty()) {
    json.null();
  } else {
    json.value(code);
  }
  json.end_object();
  json.end_object();
  return body;
}

HeaderList retry_headers(Retry retry) {
  switch (retry) {
    case Retry::kNo:
      return {};
    case Retry::kNever:
      return {{"x-should-retry", "false"}};
    case Retry::kSoon:
      return {{"Retry-After", "1"}};
  }
  return {};
}

}  // namespace

ApiError ApiError::not_in_this_version(std::string param, std::string what) {
  return {invalid_argument(std::move(what) + " is not in this version"),
          std::move(param),
          "not_in_this_version"};
}

int http_status_of(StatusCode code) { return row_of(code).http_status; }

ErrorResponse to_response(const ApiError& error) {
  const Row& row = row_of(error.status.code());
  const std::string_view message = row.code == StatusCode::kInternal
                                       ? kInternalMessage
                                       : std::string_view(error.status.message());
  return {row.http_status,
          error_body(message,
                     row.type,
                     error.param,
                     error.code.empty() ? row.error_code : std::string_view(error.code)),
          retry_headers(row.retry)};
}

ErrorResponse http_error(int http_status, std::string_view message) {
  switch (http_status) {
    case 429:
      return to_response(resource_exhausted(std::string(message)));
    case 503:
      return to_response(unavailable(std::string(message)));
    case 401:
      return to_response(unauthenticated(std::string(message)));
  }
  if (http_status >= 500) {
    return {
        http_status, error_body(message, "internal_error", "", ""), retry_headers(Retry::kNever)};
  }
  const std::string_view code = http_status == 404   ? "unknown_url"
                                : http_status == 405 ? "method_not_allowed"
                                : http_status == 413 ? "request_too_large"
                                : http_status == 415 ? "unsupported_media_type"
                                : http_status == 431 ? "headers_too_large"
                                                     : "invalid_request";
  return {http_status,
          error_body(message, "invalid_request_error", "", code),
          retry_headers(http_status == 408 ? Retry::kSoon : Retry::kNo)};
}

}  // namespace flotilla::openai
