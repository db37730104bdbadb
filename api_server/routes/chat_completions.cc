#include "api_server/routes/generate.h"

namespace flotilla {

void register_chat_completions(HttpServer& server, Serving& serving) {
  server.route(
      "POST", "/v1/chat/completions", [&serving](const HttpRequest& http, HttpExchange& exchange) {
        generate(serving, http, exchange, openai::parse_chat_request, plan_chat);
      });
}

}  // namespace flotilla
