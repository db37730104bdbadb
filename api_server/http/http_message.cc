#include "api_server/http/http_message.h"

#include <algorithm>
#include <ctime>

#include "common/json.h"

namespace flotilla {
namespace {

char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool is_token_char(unsigned char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return c != 0 &&
         std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
}

std::string_view error_type(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

bool http_equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return to_lower(x) == to_lower(y);
         });
}

bool is_http_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char);
}

HttpHeaders::HttpHeaders(
    std::initializer_list<std::pair<std::string_view, std::string_view>> fields) {
  for (const auto& [name, value] : fields) add(name, value);
}

void HttpHeaders::add(std::string_view name, std::string_view value) {
  if (!is_http_token(name)) return;
  auto& field = fields_.emplace_back(std::string(name), std::string(value));
  for (char& c : field.second) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && byte != '\t') || byte == 0x7F) c = ' ';
  }
}

void HttpHeaders::set(std::string_view name, std::string_view value) {
  remove(name);
  add(name, value);
}

void HttpHeaders::remove(std::string_view name) {
  std::erase_if(fields_, [&](const Field& f) { return http_equal_ignoring_case(f.first, name); });
}

std::string_view HttpHeaders::get(std::string_view name) const {
  for (const Field& field : fields_) {
    if (http_equal_ignoring_case(field.first, name)) return field.second;
  }
  return {};
}

size_t HttpHeaders::count(std::string_view name) const {
  return static_cast<size_t>(std::count_if(fields_.begin(), fields_.end(), [&](const Field& f) {
    return http_equal_ignoring_case(f.first, name);
  }));
}

std::string openai_error_body(const HttpError& error) {
  std::string body;
  JsonWriter json(&body);
  json.begin_object();
  json.key("error");
  json.begin_object();
  json.field("message", error.message);
  json.field("type", error_type(error.status));
  json.key("param");
  json.null();
  json.field("code", error.code);
  json.end_object();
  json.end_object();
  return body;
}

HttpResponse error_response(const HttpError& error, const HttpErrorBody& error_body) {
  HttpResponse response{.status = error.status, .headers = {}, .body = error_body(error)};
  response.headers.set("Content-Type", "application/json");
  if (error.status == 503) response.headers.set("Retry-After", "1");
  // openai clients retry every 5xx: a request that makes a handler fail would be sent three times.
  if (error.status == 500) response.headers.set("x-should-retry", "false");
  return response;
}

std::string http_date() {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {
      "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t now = time(nullptr);
  tm utc{};
  gmtime_r(&now, &utc);
  // strftime's names follow the process's locale; HTTP's do not.
  char buffer[40];
  const size_t n = strftime(buffer, sizeof buffer, "%d xxx %Y %H:%M:%S GMT", &utc);
  std::string text = std::string(kDays[utc.tm_wday]) + ", " + std::string(buffer, n);
  text.replace(text.find("xxx"), 3, kMonths[utc.tm_mon]);
  return text;
}

}  // namespace flotilla
