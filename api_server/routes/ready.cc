#include "api_server/routes/health.h"
#include "api_server/routes/routes.h"

namespace flotilla {

void register_ready(HttpServer& server, Serving& serving) {
  server.route(
      "GET",
      "/ready",
      [&serving](const HttpRequest&, HttpExchange& exchange) {
        Vitality v = vitality_of(serving);
        if (v.ready) v.status = "ready";
        exchange.respond(vitality_answer(v, v.ready));
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
