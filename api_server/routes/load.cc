#include "api_server/routes/routes.h"
#include "common/json.h"

namespace flotilla {

void register_load(HttpServer& server, Serving& serving) {
  server.route(
      "GET",
      "/load",
      [&serving](const HttpRequest&, HttpExchange& exchange) {
        const EngineLoad load = serving.dispatcher.load();
        const double total = static_cast<double>(load.blocks_total);
        std::string body;
        JsonWriter json(&body);
        json.begin_object();
        json.field("server_load", serving.admission.held());  // vLLM's name: requests being served
        json.field("max_concurrency", serving.admission.limit());
        json.field("running", load.running);
        json.field("waiting", load.waiting);
        json.field("blocks_used", load.blocks_used);
        json.field("blocks_total", load.blocks_total);
        json.field("kv_cache_usage",
                   total > 0 ? static_cast<double>(load.blocks_used) / total : 0.0);
        json.field("tokens_to_prefill", load.tokens_to_prefill);
        json.field("draining", serving.draining());
        json.end_object();
        exchange.respond(openai::json_answer(200, std::move(body)));
      },
      RouteKind::kCheap);
}

}  // namespace flotilla
