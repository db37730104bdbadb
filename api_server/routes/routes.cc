#include "api_server/routes/routes.h"

#include "api_server/openai/format.h"

namespace flotilla {

HttpResponse json_answer(int status, std::string body) {
  return {
      .status = status, .headers = {{"Content-Type", "application/json"}}, .body = std::move(body)};
}

HttpResponse error_answer(const openai::ApiError& error) {
  openai::ErrorResponse response = openai::to_response(error);
  HttpResponse answer = json_answer(response.http_status, std::move(response.body));
  for (const auto& [name, value] : response.headers) answer.headers.set(name, value);
  return answer;
}

std::string request_id_of(const HttpRequest& request) {
  const std::string_view given = request.headers.get("X-Request-Id");
  return openai::is_valid_request_id(given) ? std::string(given) : openai::random_request_id();
}

std::optional<HttpResponse> refuse_content_type(const HttpRequest& request) {
  std::string_view type = request.headers.get("Content-Type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  const bool json =
      type.empty() || http_equal_ignoring_case(type, "application/json") ||
      (type.size() > 5 && http_equal_ignoring_case(type.substr(type.size() - 5), "+json"));
  if (json) return std::nullopt;
  openai::ErrorResponse error =
      openai::http_error(415, "Content-Type: expected application/json, or none");
  return json_answer(error.http_status, std::move(error.body));
}

std::optional<openai::ApiError> check_model(const App& app, const std::string& name) {
  if (app.knows_model(name)) return std::nullopt;
  std::string served;
  for (const std::string& model : app.listed_models()) served += model + ", ";
  return openai::ApiError{not_found("model: there is no model '" + name.substr(0, 200) +
                                    "' here, only: " + served + "default"),
                          "model",
                          "model_not_found"};
}

}  // namespace flotilla
