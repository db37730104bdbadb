#include "api_server/routes/routes.h"

namespace flotilla {

void register_version(HttpServer& server) {
  server.route(
      "GET",
      "/version",
      [](const HttpRequest&, HttpExchange& exchange) {
        exchange.respond(openai::json_answer(200, R"({"version":")" FLOTILLA_VERSION R"("})"));
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
