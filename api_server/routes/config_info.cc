#include "api_server/routes/routes.h"

namespace flotilla {

void register_config_info(HttpServer& server, Serving& serving) {
  server.route(
      "GET",
      "/config-info",
      [&serving](const HttpRequest&, HttpExchange& exchange) {
        const std::string& info = serving.options.config_info;
        exchange.respond(openai::json_answer(200, info.empty() ? "{}" : info));
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
