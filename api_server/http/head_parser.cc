#include "api_server/http/head_parser.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace flotilla {
namespace {

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool all_of(std::string_view text, std::string_view besides_alnum) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_alnum(c) || besides_alnum.find(c) != std::string_view::npos;
  });
}

// RFC 3986: unreserved, sub-delims, ':' '@' '/' '?', '%', and '[' ']', which many clients leave as
// they are in a query.
bool is_uri_text(std::string_view text) { return all_of(text, "-._~!$&'()*+,;=:@/?%[]"); }
bool is_host(std::string_view text) { return all_of(text, "-._~!$&'()*+,;=:%[]"); }

// False for a '%' without two hex digits, and for an escaped control character.
bool percent_decode(std::string_view text, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return false;
      const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return false;
      c = static_cast<char>(high * 16 + low);
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return false;
      i += 2;
    }
    *out += c;
  }
  return true;
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// Is `token` one of the comma-separated tokens of all fields of that name?
bool lists_token(const HttpHeaders& headers, std::string_view name, std::string_view token) {
  for (const auto& [field, value] : headers) {
    if (!http_equal_ignoring_case(field, name)) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const size_t comma = std::min(rest.find(','), rest.size());
      if (http_equal_ignoring_case(trim(rest.substr(0, comma)), token)) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

}  // namespace

HeadParser::Result HeadParser::fail(int status, std::string_view code, std::string message) {
  error_ = {.status = status, .code = code, .message = std::move(message)};
  return Result::kError;
}

HeadParser::Result HeadParser::scan(std::string_view buffer) {
  while (position_ < buffer.size()) {
    const bool complete = step(static_cast<unsigned char>(buffer[position_]));
    if (!error_.code.empty()) return Result::kError;
    ++position_;
    if (complete) {
      return parse(buffer.substr(start_, position_ - start_)) ? Result::kDone : Result::kError;
    }
  }
  return Result::kNeedMore;
}

bool HeadParser::step(unsigned char c) {
  ++line_bytes_;
  if (after_cr_ && c != '\n') {
    fail(400, "bare_cr", "a carriage return without a line feed: lines end with CR LF");
    return false;
  }
  if (c == '\n') {
    if (!after_cr_) {
      fail(400, "bare_lf", "a line feed without a carriage return: lines end with CR LF");
      return false;
    }
    after_cr_ = false;
    if (line_bytes_ == 2) {
      if (request_line_bytes_ > 0) return true;
      // RFC 9112 §2.2: one empty line before the request line is to be ignored.
      if (start_ > 0)
        fail(400, "bad_request_line", "empty lines where a request line was expected");
      start_ = position_ + 1;
    } else if (request_line_bytes_ == 0) {
      request_line_bytes_ = line_bytes_;
    }
    line_bytes_ = 0;
    return false;
  }
  if (c == '\r') {
    after_cr_ = true;
    return false;
  }
  if ((c < 0x20 && c != '\t') || c == 0x7F) {
    const bool tls = c == 0x16 && position_ == 0;
    fail(400,
         "control_character",
         tls ? "this looks like TLS: the port speaks plain HTTP, use http://"
             : "a control character in the request's head");
    return false;
  }
  if (request_line_bytes_ == 0) {
    if (line_bytes_ > limits_.max_request_line_bytes) {
      fail(414,
           "request_line_too_long",
           "the request line is longer than " + std::to_string(limits_.max_request_line_bytes) +
               " bytes");
    }
  } else if (position_ - start_ - request_line_bytes_ >= limits_.max_header_bytes) {
    fail(431,
         "headers_too_large",
         "the request's headers are larger than " + std::to_string(limits_.max_header_bytes) +
             " bytes together");
  }
  return false;
}

bool HeadParser::parse(std::string_view head) {
  const auto next_line = [&] {
    const size_t end = head.find('\n');
    const std::string_view line = head.substr(0, end - 1);
    head.remove_prefix(end + 1);
    return line;
  };
  if (!parse_request_line(next_line())) return false;
  for (std::string_view line = next_line(); !line.empty(); line = next_line()) {
    if (!parse_field(line)) return false;
  }
  return check_fields() && check_framing();
}

bool HeadParser::parse_request_line(std::string_view line) {
  HttpRequest& request = head_.request;
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    fail(400,
         "bad_request_line",
         "a request line is a method, a target and a version, one space between them");
    return false;
  }
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    fail(400, "bad_version", "the protocol version is not HTTP/1.1 or HTTP/1.0");
    return false;
  }
  request.minor_version = version.back() - '0';
  request.method = line.substr(0, first);
  if (!is_http_token(request.method) || request.method.size() > 32) {
    fail(400, "bad_method", "the method is not a token of at most 32 characters");
    return false;
  }
  request.target = line.substr(first + 1, last - first - 1);
  return parse_target(request.target);
}

bool HeadParser::parse_target(std::string_view target) {
  HttpRequest& request = head_.request;
  const auto bad = [&](std::string message) {
    fail(400, "bad_request_target", std::move(message));
    return false;
  };
  if (target == "*" && request.method == "OPTIONS") {
    request.path = "*";
    return true;
  }
  if (!is_uri_text(target)) {
    return bad("the request target has a character that a URI does not have: percent-encode it");
  }
  if (!target.starts_with('/')) {  // RFC 9112 §3.2.2: the form that proxies are sent
    const size_t colon = target.find("://");
    const std::string_view scheme = target.substr(0, std::min(colon, target.size()));
    if (colon == std::string_view::npos ||
        (!http_equal_ignoring_case(scheme, "http") && !http_equal_ignoring_case(scheme, "https"))) {
      return bad("the request target is neither a path that starts with '/' nor an http:// URL");
    }
    target.remove_prefix(colon + 3);
    const size_t authority = std::min(target.find_first_of("/?"), target.size());
    if (authority == 0 || !is_host(target.substr(0, authority))) {
      return bad("the request target's host is empty or malformed");
    }
    target.remove_prefix(authority);
    if (!target.starts_with('/')) request.path = "/";
  }
  const size_t question = std::min(target.find('?'), target.size());
  request.query = target.substr(std::min(question + 1, target.size()));
  if (question > 0 && !percent_decode(target.substr(0, question), &request.path)) {
    return bad("the path has a '%' without two hex digits, or an escaped control character");
  }
  return true;
}

bool HeadParser::parse_field(std::string_view line) {
  if (line.front() == ' ' || line.front() == '\t') {
    fail(400, "folded_header", "a header line starts with a blank: folded headers are refused");
    return false;
  }
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, std::min(colon, line.size()));
  if (colon == std::string_view::npos || !is_http_token(name)) {
    fail(400, "bad_header_name", "a header line is not a name, directly a colon, and a value");
    return false;
  }
  if (head_.request.headers.size() == limits_.max_header_fields) {
    fail(431,
         "too_many_headers",
         "more than " + std::to_string(limits_.max_header_fields) + " header fields");
    return false;
  }
  head_.request.headers.add(name, trim(line.substr(colon + 1)));
  return true;
}

bool HeadParser::check_fields() {
  const HttpHeaders& headers = head_.request.headers;
  const bool http_1_1 = head_.request.minor_version == 1;
  const size_t hosts = headers.count("Host");
  if (hosts > 1 || (hosts == 0 && http_1_1) || !is_host(headers.get("Host"))) {
    fail(400, "bad_host", "one valid Host header was expected");
    return false;
  }
  head_.keep_alive = !lists_token(headers, "Connection", "close") &&
                     (http_1_1 || lists_token(headers, "Connection", "keep-alive"));
  if (headers.has("Expect") && http_1_1) {
    if (headers.count("Expect") > 1 ||
        !http_equal_ignoring_case(headers.get("Expect"), "100-continue")) {
      fail(417, "bad_expectation", "the only expectation known is 100-continue");
      return false;
    }
    head_.expect_continue = true;
  }
  return true;
}

bool HeadParser::check_framing() {
  const HttpHeaders& headers = head_.request.headers;
  const size_t lengths = headers.count("Content-Length");
  const size_t codings = headers.count("Transfer-Encoding");
  if (lengths > 0 && codings > 0) {
    fail(400, "ambiguous_length", "both Content-Length and Transfer-Encoding: send one of them");
    return false;
  }
  if (codings > 0) {
    if (codings > 1 || head_.request.minor_version == 0 ||
        !http_equal_ignoring_case(headers.get("Transfer-Encoding"), "chunked")) {
      fail(400,
           "bad_transfer_encoding",
           "the only transfer coding taken is a single chunked, on HTTP/1.1");
      return false;
    }
    head_.framing = BodyFraming::kChunked;
  }
  if (lengths > 0) {
    const std::string_view text = headers.get("Content-Length");
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), head_.content_length);
    // from_chars into an unsigned type takes no sign and no blank.
    if (lengths > 1 || error != std::errc() || end != text.data() + text.size()) {
      fail(400, "bad_content_length", "Content-Length is not one field with one decimal number");
      return false;
    }
    if (head_.content_length > 0) head_.framing = BodyFraming::kLength;
  }
  return true;
}

}  // namespace flotilla
