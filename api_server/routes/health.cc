#include "api_server/routes/health.h"

#include "api_server/routes/routes.h"
#include "common/json.h"

namespace flotilla {

Vitality vitality_of(const EngineHealth& health, bool draining, double stall_limit_seconds) {
  Vitality v;
  v.degraded = health.degraded;
  v.detail = health.detail;
  switch (health.state) {
    case EngineState::kStarting:
      v.status = "loading";
      break;
    case EngineState::kFailed:
      v.status = "failed";
      break;
    case EngineState::kPaused:
      v.status = "paused";
      v.alive = true;
      break;
    case EngineState::kServing:
      v.status = "ok";
      v.alive = v.ready = true;
      break;
  }
  // A long prefill or a full queue is work that moves; only standing still with work is a fault.
  if (v.ready && health.seconds_without_progress > stall_limit_seconds) {
    v.status = "stalled";
    v.alive = v.ready = false;
  }
  if (draining) {
    v.ready = false;
    if (v.alive) v.status = "draining";
  }
  return v;
}

HttpResponse vitality_answer(const Vitality& v, bool good) {
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.field("status", v.status);
  json.field("degraded", v.degraded);
  if (!v.detail.empty()) json.field("detail", v.detail);
  json.end_object();
  HttpResponse answer = openai::json_answer(good ? 200 : 503, std::move(body));
  answer.headers.set("Cache-Control", "no-store");
  if (!good) answer.headers.set("Retry-After", "1");
  return answer;
}

Vitality vitality_of(const Serving& serving) {
  return vitality_of(serving.dispatcher.health(),
                     serving.draining(),
                     std::chrono::duration<double>(serving.options.health_timeout).count());
}

void register_health(HttpServer& server, Serving& serving) {
  const auto handler = [&serving](const HttpRequest&, HttpExchange& exchange) {
    const Vitality v = vitality_of(serving);
    exchange.respond(vitality_answer(v, v.alive));
  };
  server.route("GET", "/health", handler, RouteKind::kCheap);
  server.route("GET", "/ping", handler, RouteKind::kCheap);
  server.route("POST", "/ping", handler, RouteKind::kCheap);
}

}  // namespace flotilla
