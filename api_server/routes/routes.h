// The endpoints, one file each, and what they share. App (api_server/app.h) registers them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api_server/app.h"
#include "api_server/http/http_server.h"
#include "api_server/openai/error.h"

namespace flotilla {

void register_chat_completions(HttpServer& server, App& app);  // POST /v1/chat/completions
void register_completions(HttpServer& server, App& app);       // POST /v1/completions
void register_models(HttpServer& server, App& app);            // GET /v1/models, /v1/models/NAME
void register_tokenize(HttpServer& server, App& app);          // POST /tokenize
void register_detokenize(HttpServer& server, App& app);        // POST /detokenize
void register_health(HttpServer& server, App& app);            // GET /health; GET, POST /ping
void register_ready(HttpServer& server, App& app);             // GET /ready
void register_metrics(HttpServer& server, App& app);           // GET /metrics
void register_version(HttpServer& server, App& app);           // GET /version
void register_load(HttpServer& server, App& app);              // GET /load
void register_config_info(HttpServer& server, App& app);       // GET /config-info

HttpResponse json_answer(int status, std::string body);
HttpResponse error_answer(const openai::ApiError& error);
inline HttpResponse error_answer(const Status& status) {
  return error_answer(openai::ApiError{status});
}

// The client's X-Request-Id if it is a valid one, else a new random id.
std::string request_id_of(const HttpRequest& request);

// 415 unless the body may be JSON: Content-Type is absent or names JSON. (A page of another origin
// can send any other type without the browser asking first.)
std::optional<HttpResponse> refuse_content_type(const HttpRequest& request);
// A complaint unless `name` is a served model.
std::optional<openai::ApiError> check_model(const App& app, const std::string& name);

}  // namespace flotilla
