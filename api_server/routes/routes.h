// The endpoints, one file each, and what they share. api_server/serving.cc registers them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api_server/generation/serving.h"
#include "api_server/http/http_server.h"
#include "api_server/openai/answer.h"

namespace flotilla {

void register_chat_completions(HttpServer& server, Serving& serving);  // POST /v1/chat/completions
void register_completions(HttpServer& server, Serving& serving);       // POST /v1/completions
void register_models(HttpServer& server, Serving& serving);       // GET /v1/models, /v1/models/NAME
void register_tokenize(HttpServer& server, Serving& serving);     // POST /tokenize
void register_detokenize(HttpServer& server, Serving& serving);   // POST /detokenize
void register_health(HttpServer& server, Serving& serving);       // GET /health; GET, POST /ping
void register_ready(HttpServer& server, Serving& serving);        // GET /ready
void register_metrics(HttpServer& server, Serving& serving);      // GET /metrics
void register_version(HttpServer& server);                        // GET /version
void register_load(HttpServer& server, Serving& serving);         // GET /load
void register_config_info(HttpServer& server, Serving& serving);  // GET /config-info

// 415 unless the body may be JSON: Content-Type is absent or names JSON. (A page of another origin
// can send any other type without the browser asking first.)
std::optional<HttpResponse> refuse_content_type(const HttpRequest& request);
// A complaint unless `name` is a served model.
std::optional<openai::ApiError> check_model(const Serving& serving, const std::string& name);

}  // namespace flotilla
