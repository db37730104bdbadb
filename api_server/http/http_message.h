// HTTP requests and responses as plain values: what handlers see. No library type in here.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flotilla {

bool http_equal_ignoring_case(std::string_view a, std::string_view b);
// RFC 9110's `token`: what methods and header names are made of. False for an empty text.
bool is_http_token(std::string_view text);

// Header fields in the order they were added; names compare without case. A control character in a
// value becomes a space and a field whose name is no token is left out, so that nothing echoed here
// can end a header or start another one.
class HttpHeaders {
 public:
  using Field = std::pair<std::string, std::string>;

  HttpHeaders() = default;
  HttpHeaders(std::initializer_list<std::pair<std::string_view, std::string_view>> fields);

  void add(std::string_view name, std::string_view value);
  void set(std::string_view name, std::string_view value);  // instead of all fields of that name
  void remove(std::string_view name);

  std::string_view get(
      std::string_view name) const;  // the first one's value; empty if there is none
  size_t count(std::string_view name) const;
  bool has(std::string_view name) const { return count(name) > 0; }

  size_t size() const { return fields_.size(); }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  std::vector<Field> fields_;
};

struct HttpRequest {
  std::string method;  // as sent; a token
  std::string target;  // as sent, e.g. "/v1/models/a%2Fb?x=1"
  std::string path;    // decoded, e.g. "/v1/models/a/b"; starts with '/', or is "*" (OPTIONS only)
  std::string query;   // behind '?', not decoded
  int minor_version = 1;  // HTTP/1.0 or HTTP/1.1
  HttpHeaders headers;
  std::string body;            // de-chunked; freed when the response is detached
  std::string remote_address;  // the peer's IP; X-Forwarded-For is not trusted
  std::chrono::steady_clock::time_point received_at{};  // when the last byte of it was here
};

struct HttpResponse {
  int status = 200;
  // Content-Length, Transfer-Encoding, Connection and Date are the server's own: set here, they are
  // replaced.
  HttpHeaders headers;
  std::string body;
};

// An answer of the server itself (not of a route). `message` holds no byte of the request.
struct HttpError {
  int status = 400;
  std::string_view code = {};  // "bad_request_line", "body_too_large", …
  std::string message = {};
};

// Makes the body of an error answer (always application/json).
using HttpErrorBody = std::function<std::string(const HttpError&)>;
// {"error":{"message":…,"type":…,"param":null,"code":…}}
std::string openai_error_body(const HttpError& error);

HttpResponse error_response(const HttpError& error, const HttpErrorBody& error_body);

// "Mon, 24 Nov 2026 05:43:00 GMT", as of now.
std::string http_date();

}  // namespace flotilla
