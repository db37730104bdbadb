// START HERE for the API: what main() makes of an engine and a text model to get a server.
//
//   App app({.dispatcher = …, .tokenizer = …, .registry = …}, {.serving = {.model = …}, .api_keys =
//   …}); HttpServer server(app_http_options(&app));   // authentication, CORS, request ids, drain,
//   metrics register_routes(server, app); server.start(…);   …   app.serving.begin_drain();   …
//   server.stop(deadline);
#pragma once

#include <string>
#include <vector>

#include "api_server/auth.h"
#include "api_server/generation/serving.h"
#include "api_server/http/http_server.h"

namespace flotilla {

struct AppOptions {
  ServingOptions serving;
  std::vector<std::string> api_keys = {};         // empty: open
  std::vector<std::string> allowed_origins = {};  // empty: no CORS
};

// Outlives the servers that serve it. Threads: any.
struct App {
  App(ServingParts parts, AppOptions options)
      : serving(std::move(parts), std::move(options.serving)),
        keys(options.api_keys),
        cors(std::move(options.allowed_origins)) {}

  Serving serving;
  const ApiKeys keys;
  const Cors cors;
};

// Hooks of a server that serves the App: who may in, what every answer carries, what is counted.
// The rest keeps its defaults.
HttpServerOptions app_http_options(App* app);
// The same for the metrics port, where nothing needs a key.
HttpServerOptions probe_http_options(App* app);

// All endpoints. Needs a tokenizer.
void register_routes(HttpServer& server, App& app);
// Those of the metrics port: /metrics, /health, /ready, /ping, /version, /load, /config-info.
void register_probe_routes(HttpServer& server, App& app);

// Shows the server's own counters in /metrics, as server="…". Both outlive the last export.
void export_http_counters(MetricsRegistry* registry,
                          const HttpServer* server,
                          const std::string& name);

}  // namespace flotilla
