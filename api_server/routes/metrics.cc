#include "api_server/routes/routes.h"

namespace flotilla {

void register_metrics(HttpServer& server, Serving& serving) {
  server.route(
      "GET",
      "/metrics",
      [&serving](const HttpRequest&, HttpExchange& exchange) {
        serving.metrics.in_flight(serving.admission.held());
        exchange.respond({.status = 200,
                          .headers = {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
                          .body = serving.registry.text()});
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
