#include "api_server/routes/routes.h"

namespace flotilla {

std::optional<HttpResponse> refuse_content_type(const HttpRequest& request) {
  std::string_view type = request.headers.get("Content-Type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  const bool json =
      type.empty() || http_equal_ignoring_case(type, "application/json") ||
      (type.size() > 5 && http_equal_ignoring_case(type.substr(type.size() - 5), "+json"));
  if (json) return std::nullopt;
  return openai::error_answer(415, "Content-Type: expected application/json, or none");
}

std::optional<openai::ApiError> check_model(const Serving& serving, const std::string& name) {
  if (serving.knows_model(name)) return std::nullopt;
  std::string served;
  for (const std::string& model : serving.listed_models()) served += model + ", ";
  return openai::ApiError{not_found("model: there is no model '" + name.substr(0, 200) +
                                    "' here, only: " + served + "default"),
                          "model",
                          "model_not_found"};
}

}  // namespace flotilla
