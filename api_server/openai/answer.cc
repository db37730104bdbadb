#include "api_server/openai/answer.h"

#include <utility>

#include "api_server/openai/format.h"
#include "api_server/openai/schema.h"

namespace flotilla::openai {
namespace {

HttpResponse to_http(ErrorResponse response) {
  HttpResponse answer = json_answer(response.http_status, std::move(response.body));
  for (const auto& [name, value] : response.headers) answer.headers.set(name, value);
  return answer;
}

}  // namespace

HttpResponse json_answer(int status, std::string body) {
  return {
      .status = status, .headers = {{"Content-Type", "application/json"}}, .body = std::move(body)};
}

HttpResponse error_answer(const ApiError& error) { return to_http(to_response(error)); }

HttpResponse error_answer(int http_status, std::string_view message) {
  return to_http(http_error(http_status, message));
}

std::string request_id_of(const HttpRequest& request) {
  const std::string_view given = request.headers.get("X-Request-Id");
  return is_valid_request_id(given) ? std::string(given) : random_request_id();
}

}  // namespace flotilla::openai
