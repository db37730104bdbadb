// A request's bytes as HttpConnection reads them: head, then the body by the head's framing.
// However they are cut, the result is the same, within limits, and holds nothing that could end a
// header.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api_server/http/chunked_decoder.h"
#include "api_server/http/head_parser.h"
#include "common/check.h"

using namespace flotilla;

namespace {

constexpr HeadLimits kLimits{
    .max_request_line_bytes = 256, .max_header_bytes = 1024, .max_header_fields = 16};
constexpr size_t kMaxBodyBytes = 512;

struct Outcome {
  HeadParser::Result head;
  std::string head_text;  // all that was understood, or the error
  std::string body;
  std::string body_error;
  size_t consumed = 0;  // of the input, by head and body
};

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\t') || byte == 0x7F;
  });
}

std::string describe(const RequestHead& head) {
  const HttpRequest& r = head.request;
  check(r.path == "*" || r.path.starts_with('/'), "a path starts with '/'");
  check(r.headers.size() <= kLimits.max_header_fields, "the number of fields is bounded");
  std::string text =
      r.method + ' ' + r.path + ' ' + r.query + ' ' + std::to_string(r.minor_version);
  for (const auto& [name, value] : r.headers) {
    check(is_http_token(name), "a name is a token");
    text += ' ' + name + ':' + value;
  }
  check(!has_control(text), "nothing could end a line");
  const bool length = r.headers.has("Content-Length"), coding = r.headers.has("Transfer-Encoding");
  check(!(length && coding), "one framing");
  check((head.framing == BodyFraming::kChunked) == coding, "chunked means Transfer-Encoding");
  return text + ' ' + std::to_string(static_cast<int>(head.framing)) + ' ' +
         std::to_string(head.content_length) + ' ' + std::to_string(head.keep_alive) +
         std::to_string(head.expect_continue);
}

// The bytes arrive `step` at a time.
Outcome read_request(std::string_view bytes, size_t step) {
  HeadParser parser(kLimits);
  Outcome out{.head = HeadParser::Result::kNeedMore, .head_text = {}, .body = {}, .body_error = {}};
  size_t given = 0;
  while (out.head == HeadParser::Result::kNeedMore && given < bytes.size()) {
    given = std::min(bytes.size(), given + step);
    out.head = parser.scan(bytes.substr(0, given));
  }
  if (out.head != HeadParser::Result::kDone) {
    out.head_text = std::string(parser.error().code);
    return out;
  }
  out.head_text = describe(parser.head());
  out.consumed = parser.head_bytes();
  check(out.consumed <= given, "a head is within its bytes");
  if (parser.head().framing != BodyFraming::kChunked) return out;
  ChunkedDecoder decoder(kMaxBodyBytes);
  auto result = ChunkedDecoder::Result::kNeedMore;
  while (result == ChunkedDecoder::Result::kNeedMore && out.consumed < bytes.size()) {
    size_t consumed = 0;
    result = decoder.feed(bytes.substr(out.consumed, step), &out.body, &consumed);
    out.consumed += consumed;
    check(out.body.size() <= kMaxBodyBytes, "a body is within its limit");
  }
  out.body_error = std::string(decoder.error().code);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = read_request(bytes, std::max<size_t>(size, 1));
  for (const size_t step : {size_t{1}, size_t{3}, size_t{61}}) {
    const Outcome cut = read_request(bytes, step);
    check(cut.head == whole.head && cut.head_text == whole.head_text, "cuts do not matter: head");
    check(cut.body == whole.body && cut.body_error == whole.body_error &&
              cut.consumed == whole.consumed,
          "cuts do not matter: body");
  }
  return 0;
}
