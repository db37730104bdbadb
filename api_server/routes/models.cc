#include "api_server/routes/routes.h"
#include "common/json.h"

namespace flotilla {
namespace {

constexpr std::string_view kPrefix = "/v1/models/";

void write_model(const Serving& serving, const std::string& name, JsonWriter* json) {
  json->begin_object();
  json->field("id", name);
  json->field("object", "model");
  json->field("created", serving.started_at);
  json->field("owned_by", "flotilla");
  json->field("root", serving.options.model);
  json->key("parent");
  json->null();
  json->field("max_model_len", serving.dispatcher.limits().max_model_len);
  json->end_object();
}

void list_models(const Serving& serving, HttpExchange& exchange) {
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.field("object", "list");
  json.key("data");
  json.begin_array();
  for (const std::string& name : serving.listed_models()) write_model(serving, name, &json);
  json.end_array();
  json.end_object();
  exchange.respond(openai::json_answer(200, std::move(body)));
}

void show_model(const Serving& serving, const HttpRequest& request, HttpExchange& exchange) {
  const std::string name = request.path.substr(kPrefix.size());
  if (const auto unknown = check_model(serving, name)) {
    exchange.respond(openai::error_answer(*unknown));
    return;
  }
  std::string body;
  JsonWriter json(&body);
  write_model(serving, name, &json);
  exchange.respond(openai::json_answer(200, std::move(body)));
}

}  // namespace

void register_models(HttpServer& server, Serving& serving) {
  server.route("GET", "/v1/models", [&serving](const HttpRequest&, HttpExchange& exchange) {
    list_models(serving, exchange);
  });
  server.route("GET",
               std::string(kPrefix) + "*",
               [&serving](const HttpRequest& request, HttpExchange& exchange) {
                 show_model(serving, request, exchange);
               });
}

}  // namespace flotilla
