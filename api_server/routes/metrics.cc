#include "api_server/routes/routes.h"

namespace flotilla {

void register_metrics(HttpServer& server, App& app) {
  server.route(
      "GET",
      "/metrics",
      [&app](const HttpRequest&, HttpExchange& exchange) {
        app.metrics.in_flight(app.admission.held());
        exchange.respond({.status = 200,
                          .headers = {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
                          .body = app.registry.text()});
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
