// Answers as HTTP responses.
#pragma once

#include <string>

#include "api_server/http/http_message.h"
#include "api_server/openai/error.h"

namespace flotilla::openai {

HttpResponse json_answer(int status, std::string body);
HttpResponse error_answer(const ApiError& error);
inline HttpResponse error_answer(const Status& status) { return error_answer(ApiError{status}); }
HttpResponse error_answer(int http_status, std::string_view message);

// The client's X-Request-Id if it is a valid one, else a new random id.
std::string request_id_of(const HttpRequest& request);

}  // namespace flotilla::openai
