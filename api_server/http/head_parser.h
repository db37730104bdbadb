// Reads a request's head (request line and header fields) strictly: what two servers could read in
// two ways is refused, since behind a proxy the difference is a smuggled request. Source: RFC 9112
// §2–§7, RFC 9110 §5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "api_server/http/http_message.h"

namespace flotilla {

struct HeadLimits {
  size_t max_request_line_bytes = 8 << 10;  // longer: 414
  size_t max_header_bytes = 64 << 10;       // all fields with their line ends; more: 431
  size_t max_header_fields = 128;           // more: 431
};

enum class BodyFraming { kNone, kLength, kChunked };

struct RequestHead {
  HttpRequest request;  // without body, remote_address and received_at
  BodyFraming framing = BodyFraming::kNone;
  uint64_t content_length = 0;  // kLength
  bool keep_alive = true;       // as the client wants it
  bool expect_continue = false;
};

// Finds the end of the head while bytes come in, then parses it. O(bytes) however they are cut.
class HeadParser {
 public:
  enum class Result { kNeedMore, kDone, kError };

  explicit HeadParser(const HeadLimits& limits) : limits_(limits) {}

  // `buffer` is everything received since the last reset(), longer with each call.
  Result scan(std::string_view buffer);
  void reset() { *this = HeadParser(limits_); }

  // After kDone. The head's length in the buffer, with the empty line; what follows is body or the
  // next request.
  size_t head_bytes() const { return position_; }
  RequestHead& head() { return head_; }
  // After kError: nothing behind it can be trusted, the connection has to end.
  const HttpError& error() const { return error_; }

 private:
  Result fail(int status, std::string_view code, std::string message);
  // Checks one byte; true at the empty line that ends the head. Sets error_.
  bool step(unsigned char c);
  bool parse(std::string_view head);
  bool parse_request_line(std::string_view line);
  bool parse_target(std::string_view target);
  bool parse_field(std::string_view line);
  bool check_fields();
  bool check_framing();

  HeadLimits limits_;
  size_t position_ = 0;            // bytes of the buffer seen
  size_t start_ = 0;               // of the request line: an empty line before it is skipped
  size_t line_bytes_ = 0;          // of the line being read
  size_t request_line_bytes_ = 0;  // with its line end; 0 while it is being read
  bool after_cr_ = false;
  RequestHead head_;
  HttpError error_;
};

}  // namespace flotilla
