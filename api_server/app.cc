#include "api_server/app.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "api_server/openai/error.h"
#include "api_server/routes/routes.h"
#include "common/crypto.h"

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
bool is_one_of(std::string_view path, const std::array<std::string_view, N>& paths) {
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

// What a metric may say of a path: never what a client made up.
std::string_view route_label(std::string_view path) {
  if (is_one_of(path, kOpenPaths) || is_one_of(path, kGenerationPaths) ||
      is_one_of(path, kOtherPaths)) {
    return path;
  }
  return path.starts_with("/v1/models/") ? "/v1/models/*" : "unmatched";
}

std::string_view method_label(std::string_view method) {
  for (const std::string_view known : {"GET", "POST", "OPTIONS", "HEAD"}) {
    if (method == known) return known;
  }
  return "other";
}

std::string last_path_part(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

uint64_t random_seed() {
  uint64_t seed = 0;
  for (const char c : random_bytes(sizeof seed)) seed = seed << 8 | static_cast<unsigned char>(c);
  return seed;
}

// SplitMix64: neighbouring numbers give unrelated seeds.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

std::optional<HttpResponse> check_head(App& app, bool needs_keys, const HttpRequest& head) {
  if (head.method == "OPTIONS") return std::nullopt;  // browsers send no key with a preflight
  if (needs_keys && !is_one_of(head.path, kOpenPaths) &&
      !app.keys.admits(head.headers.get("Authorization"))) {
    HttpResponse response = error_answer(
        unauthenticated("a valid API key is needed: send it as 'Authorization: Bearer KEY'"));
    response.headers.set("WWW-Authenticate", "Bearer");
    return response;
  }
  if (is_one_of(head.path, kGenerationPaths) && app.draining()) {
    app.metrics.request_refused(503);
    return error_answer(
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
    if (!headers->has("X-Request-Id")) headers->set("X-Request-Id", request_id_of(request));
  };
  options.check_head = [app, needs_keys](const HttpRequest& head) {
    return check_head(*app, needs_keys, head);
  };
  options.on_finished = [app](const HttpRequest& request, int status, bool complete) {
    const auto now = std::chrono::steady_clock::now();
    app->metrics.http_finished(
        method_label(request.method), route_label(request.path), status, now - request.received_at);
    if (!complete) app->metrics.client_lost();
  };
  return options;
}

}  // namespace

App::App(AppParts parts, AppOptions app_options)
    : dispatcher(parts.dispatcher),
      tokenizer(parts.tokenizer),
      chat_template(parts.chat_template),
      defaults(parts.defaults),
      options(std::move(app_options)),
      registry(parts.registry),
      metrics(&parts.registry, std::max<int64_t>(1, parts.dispatcher.limits().max_model_len)),
      keys(options.api_keys),
      cors(options.allowed_origins),
      admission(options.max_concurrency),
      started_at(std::time(nullptr)),
      accepted_(options.served_model_names),
      listed_(options.served_model_names) {
  if (listed_.empty()) {
    listed_ = {options.model};
    accepted_ = {options.model, last_path_part(options.model)};
  }
}

bool App::knows_model(std::string_view name) const {
  return name == "default" ||
         std::find(accepted_.begin(), accepted_.end(), name) != accepted_.end();
}

const std::string& App::shown_model(const std::string& asked) const {
  return asked == "default" ? listed_.front() : asked;
}

openai::SchemaLimits App::schema_limits() const {
  return {.vocab_size = dispatcher.limits().vocab_size,
          .max_n = options.max_n,
          .max_logprobs = options.max_logprobs};
}

uint64_t App::draw_seed() {
  return options.seed ? mix(*options.seed + drawn_.fetch_add(1)) : random_seed();
}

HttpServerOptions app_http_options(App* app) { return http_options(app, true); }
HttpServerOptions probe_http_options(App* app) { return http_options(app, false); }

void register_routes(HttpServer& server, App& app) {
  check(app.tokenizer != nullptr, "generation routes need a tokenizer");
  register_chat_completions(server, app);
  register_completions(server, app);
  register_models(server, app);
  register_tokenize(server, app);
  register_detokenize(server, app);
  register_probe_routes(server, app);
}

void register_probe_routes(HttpServer& server, App& app) {
  register_health(server, app);
  register_ready(server, app);
  register_metrics(server, app);
  register_version(server, app);
  register_load(server, app);
  register_config_info(server, app);
}

}  // namespace flotilla
