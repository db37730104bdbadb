#include "api_server/app.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>

#include "api_server/openai/answer.h"
#include "api_server/routes/routes.h"
#include "common/check.h"

namespace flotilla {
namespace {

// Routes that need no key. Everything else does, also what is no route.
constexpr std::array<std::string_view, 6> kOpenPaths = {
    "/health", "/ready", "/ping", "/metrics", "/version", "/load"};
constexpr std::array<std::string_view, 2> kGenerationPaths = {"/v1/chat/completions",
                                                              "/v1/completions"};
constexpr std::array<std::string_view, 4> kOtherPaths = {
    "/v1/models", "/tokenize", "/detokenize", "/config-info"};

template <size_t N>
bool is_one_of(std::string_view text, const std::array<std::string_view, N>& list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// What a metric may say of a path or a method: never what a client made up.
std::string_view route_label(std::string_view path) {
  if (is_one_of(path, kOpenPaths) || is_one_of(path, kGenerationPaths) ||
      is_one_of(path, kOtherPaths)) {
    return path;
  }
  return path.starts_with("/v1/models/") ? "/v1/models/*" : "unmatched";
}

std::string_view method_label(std::string_view method) {
  constexpr std::array<std::string_view, 4> kMethods = {"GET", "POST", "OPTIONS", "HEAD"};
  return is_one_of(method, kMethods) ? method : "other";
}

std::optional<HttpResponse> check_head(App& app, bool needs_keys, const HttpRequest& head) {
  if (head.method == "OPTIONS") return std::nullopt;  // browsers send no key with a preflight
  if (needs_keys && !is_one_of(head.path, kOpenPaths) &&
      !app.keys.admits(head.headers.get("Authorization"))) {
    HttpResponse response = openai::error_answer(
        unauthenticated("a valid API key is needed: send it as 'Authorization: Bearer KEY'"));
    response.headers.set("WWW-Authenticate", "Bearer");
    return response;
  }
  if (is_one_of(head.path, kGenerationPaths) && app.serving.draining()) {
    app.serving.metrics.request_refused(503);
    return openai::error_answer(
        unavailable("this server is draining: it finishes what it has and takes nothing new"));
  }
  return std::nullopt;
}

HttpServerOptions http_options(App* app, bool needs_keys) {
  HttpServerOptions options;
  options.error_body = [](const HttpError& error) {
    return openai::http_error(error.status, error.message).body;
  };
  options.decorate = [app](const HttpRequest& request, HttpHeaders* headers) {
    app->cors.decorate(request, headers);
    if (!headers->has("X-Request-Id")) headers->set("X-Request-Id", openai::request_id_of(request));
  };
  options.check_head = [app, needs_keys](const HttpRequest& head) {
    return check_head(*app, needs_keys, head);
  };
  options.on_finished = [app](const HttpRequest& request, int status, bool complete) {
    const auto now = std::chrono::steady_clock::now();
    app->serving.metrics.http_finished(
        method_label(request.method), route_label(request.path), status, now - request.received_at);
    if (!complete) app->serving.metrics.client_lost();
  };
  return options;
}

}  // namespace

HttpServerOptions app_http_options(App* app) { return http_options(app, true); }
HttpServerOptions probe_http_options(App* app) { return http_options(app, false); }

void register_routes(HttpServer& server, App& app) {
  check(app.serving.tokenizer != nullptr, "generation routes need a tokenizer");
  register_chat_completions(server, app.serving);
  register_completions(server, app.serving);
  register_models(server, app.serving);
  register_tokenize(server, app.serving);
  register_detokenize(server, app.serving);
  register_probe_routes(server, app);
}

void register_probe_routes(HttpServer& server, App& app) {
  register_health(server, app.serving);
  register_ready(server, app.serving);
  register_metrics(server, app.serving);
  register_version(server);
  register_load(server, app.serving);
  register_config_info(server, app.serving);
}

}  // namespace flotilla
