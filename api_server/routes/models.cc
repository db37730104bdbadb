#include "api_server/routes/routes.h"
#include "common/json.h"

namespace flotilla {
namespace {

constexpr std::string_view kPrefix = "/v1/models/";

void write_model(const App& app, const std::string& name, JsonWriter* json) {
  json->begin_object();
  json->field("id", name);
  json->field("object", "model");
  json->field("created", app.started_at);
  json->field("owned_by", "flotilla");
  json->field("root", app.options.model);
  json->key("parent");
  json->null();
  json->field("max_model_len", app.dispatcher.limits().max_model_len);
  json->end_object();
}

void list_models(const App& app, HttpExchange& exchange) {
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.field("object", "list");
  json.key("data");
  json.begin_array();
  for (const std::string& name : app.listed_models()) write_model(app, name, &json);
  json.end_array();
  json.end_object();
  exchange.respond(json_answer(200, std::move(body)));
}

void show_model(const App& app, const HttpRequest& request, HttpExchange& exchange) {
  const std::string name = request.path.substr(kPrefix.size());
  if (const auto unknown = check_model(app, name)) {
    exchange.respond(error_answer(*unknown));
    return;
  }
  std::string body;
  JsonWriter json(&body);
  write_model(app, name, &json);
  exchange.respond(json_answer(200, std::move(body)));
}

}  // namespace

void register_models(HttpServer& server, App& app) {
  server.route("GET", "/v1/models", [&app](const HttpRequest&, HttpExchange& exchange) {
    list_models(app, exchange);
  });
  server.route("GET",
               std::string(kPrefix) + "*",
               [&app](const HttpRequest& request, HttpExchange& exchange) {
                 show_model(app, request, exchange);
               });
}

}  // namespace flotilla
