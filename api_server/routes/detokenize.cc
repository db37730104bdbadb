#include "api_server/routes/routes.h"
#include "common/json.h"

namespace flotilla {
namespace {

void detokenize(const Serving& serving, const HttpRequest& http, HttpExchange& exchange) {
  if (auto wrong_type = refuse_content_type(http)) return exchange.respond(std::move(*wrong_type));
  auto request = openai::parse_detokenize_request(http.body, serving.schema_limits());
  if (!request.ok()) return exchange.respond(openai::error_answer(request.error()));
  if (auto unknown = check_model(serving, request.value().model)) {
    return exchange.respond(openai::error_answer(*unknown));
  }
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.field("prompt", serving.tokenizer->decode(request.value().tokens, false));
  json.end_object();
  exchange.respond(openai::json_answer(200, std::move(body)));
}

}  // namespace

void register_detokenize(HttpServer& server, Serving& serving) {
  server.route("POST", "/detokenize", [&serving](const HttpRequest& http, HttpExchange& exchange) {
    detokenize(serving, http, exchange);
  });
}

}  // namespace flotilla
