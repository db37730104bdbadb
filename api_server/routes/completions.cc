#include "api_server/routes/generate.h"

namespace flotilla {

void register_completions(HttpServer& server, Serving& serving) {
  server.route(
      "POST", "/v1/completions", [&serving](const HttpRequest& http, HttpExchange& exchange) {
        generate(serving, http, exchange, openai::parse_completion_request, plan_completion);
      });
}

}  // namespace flotilla
