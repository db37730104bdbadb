#include "api_server/openai/error.h"

#include <doctest/doctest.h>
#include <simdjson.h>

namespace flotilla::openai {
namespace {

std::string header(const ErrorResponse& response, const std::string& name) {
  for (const auto& [key, value] : response.headers) {
    if (key == name) return value;
  }
  return "";
}

TEST_CASE("ToResponse.GivesEachStatusItsHttpCodeTypeAndRetryHint") {
  struct Expectation {
    StatusCode code;
    int http_status;
    std::string type, retry_after, should_retry;
  };
  for (const Expectation& e :
       {Expectation{StatusCode::kInvalidArgument, 400, "invalid_request_error", "", ""},
        {StatusCode::kUnauthenticated, 401, "authentication_error", "", ""},
        {StatusCode::kNotFound, 404, "invalid_request_error", "", ""},
        {StatusCode::kDeadlineExceeded, 408, "timeout_error", "1", ""},
        {StatusCode::kResourceExhausted, 429, "rate_limit_error", "1", ""},
        {StatusCode::kCancelled, 499, "request_cancelled", "", ""},
        {StatusCode::kInternal, 500, "internal_error", "", "false"},
        {StatusCode::kUnimplemented, 501, "not_implemented_error", "", "false"},
        {StatusCode::kUnavailable, 503, "service_unavailable_error", "1", ""},
        {StatusCode::kFailedPrecondition, 503, "service_unavailable_error", "1", ""},
        {StatusCode::kAborted, 503, "service_unavailable_error", "1", ""}}) {
    CAPTURE(to_string(e.code));
    const ErrorResponse response = to_response(Status(e.code, "why"));
    CHECK(response.http_status == e.http_status);
    CHECK(http_status_of(e.code) == e.http_status);
    CHECK(header(response, "Retry-After") == e.retry_after);
    CHECK(header(response, "x-should-retry") == e.should_retry);

    simdjson::dom::parser parser;
    const simdjson::dom::element error = parser.parse(response.body)["error"].value();
    CHECK(std::string_view(error["type"]) == e.type);
    CHECK(error["param"].is_null());
    CHECK(error["code"].is_string());
  }
}

TEST_CASE("ToResponse.HidesTheTextOfAnInternalError") {
  const ErrorResponse response = to_response(internal_error("std::bad_alloc at 0xdeadbeef"));
  CHECK(response.body.find("deadbeef") == std::string::npos);
}

TEST_CASE("ToResponse.NamesTheFieldAndItsOwnCode") {
  const ErrorResponse response =
      to_response(ApiError::bad_value("top_p", "top_p: got 2, expected …"));
  simdjson::dom::parser parser;
  const simdjson::dom::element error = parser.parse(response.body)["error"].value();
  CHECK(std::string_view(error["param"]) == "top_p");
  CHECK(std::string_view(error["code"]) == "invalid_value");
  CHECK(std::string_view(error["message"]) == "top_p: got 2, expected …");
}

TEST_CASE("ToResponse.StaysValidJsonWhateverTheMessageHolds") {
  const ErrorResponse response =
      to_response(invalid_argument("quote \" slash \\ byte \xff newline \n"));
  simdjson::dom::parser parser;
  CHECK(parser.parse(response.body).error() == simdjson::SUCCESS);
}

TEST_CASE("HttpError.CoversWhatHttpItselfRefuses") {
  for (const auto& [status, code] : {std::pair{404, "unknown_url"},
                                     {405, "method_not_allowed"},
                                     {413, "request_too_large"},
                                     {415, "unsupported_media_type"},
                                     {431, "headers_too_large"},
                                     {400, "invalid_request"},
                                     {401, "invalid_api_key"},
                                     {429, "rate_limit_exceeded"},
                                     {503, "service_unavailable"}}) {
    CAPTURE(status);
    const ErrorResponse response = http_error(status, "why");
    CHECK(response.http_status == status);
    CHECK(response.body.find(code) != std::string::npos);
  }
  CHECK(header(http_error(500, "why"), "x-should-retry") == "false");
  CHECK(header(http_error(408, "why"), "Retry-After") == "1");
}

}  // namespace
}  // namespace flotilla::openai
