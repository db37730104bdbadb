#include "api_server/routes/routes.h"

namespace flotilla {

void register_config_info(HttpServer& server, App& app) {
  server.route(
      "GET",
      "/config-info",
      [&app](const HttpRequest&, HttpExchange& exchange) {
        const std::string& info = app.options.config_info;
        exchange.respond(json_answer(200, info.empty() ? "{}" : info));
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
