#include "api_server/http/chunked_decoder.h"

#include <algorithm>

namespace flotilla {
namespace {

int hex_digit(unsigned char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_text(unsigned char c) { return (c >= 0x20 && c != 0x7F) || c == '\t'; }

}  // namespace

bool ChunkedDecoder::fail(int status, std::string_view code, std::string message) {
  error_ = {.status = status, .code = code, .message = std::move(message)};
  return false;
}

ChunkedDecoder::Result ChunkedDecoder::feed(std::string_view input,
                                            std::string* body,
                                            size_t* consumed) {
  size_t i = 0;
  while (i < input.size() && state_ != State::kDone) {
    if (state_ == State::kData) {
      const size_t n = std::min<uint64_t>(chunk_bytes_, input.size() - i);
      body->append(input, i, n);
      chunk_bytes_ -= n;
      i += n;
      if (chunk_bytes_ == 0) state_ = State::kDataCr;
      continue;
    }
    if (!step(static_cast<unsigned char>(input[i++]), body->size())) {
      *consumed = i;
      return Result::kError;
    }
  }
  *consumed = i;
  return state_ == State::kDone ? Result::kDone : Result::kNeedMore;
}

bool ChunkedDecoder::step(unsigned char c, size_t body_bytes) {
  const auto expect = [&](unsigned char wanted, State next) {
    if (c != wanted)
      return fail(400, "bad_chunk", "a chunk's line or data does not end with CR LF");
    state_ = next;
    return true;
  };
  switch (state_) {
    case State::kSize:
      if (++line_bytes_ > kMaxLineBytes) break;
      if (const int digit = hex_digit(c); digit >= 0) {
        if (++digits_ > 15) {
          return fail(400, "bad_chunk_size", "a chunk size of more than 15 hex digits");
        }
        chunk_bytes_ = chunk_bytes_ * 16 + static_cast<uint64_t>(digit);
        return true;
      }
      if (digits_ == 0 || (c != '\r' && c != ';')) {
        return fail(400, "bad_chunk_size", "a chunk size is not a plain hex number");
      }
      state_ = c == ';' ? State::kExtension : State::kSizeLf;
      return true;
    case State::kExtension:
      if (++line_bytes_ > kMaxLineBytes) break;
      if (c == '\r') {
        state_ = State::kSizeLf;
        return true;
      }
      return is_text(c) || fail(400, "bad_chunk", "a control character in a chunk extension");
    case State::kSizeLf:
      return expect('\n', State::kSize) && end_of_size_line(body_bytes);
    case State::kDataCr:
      return expect('\r', State::kDataLf);
    case State::kDataLf:
      return expect('\n', State::kSize);
    case State::kTrailerStart:
      if (c == '\r') {
        state_ = State::kEndLf;
        return true;
      }
      state_ = State::kTrailerName;
      [[fallthrough]];
    case State::kTrailerName:
      if (++trailer_bytes_ > kMaxTrailerBytes) {
        return fail(431, "trailers_too_large", "the trailer fields are larger than 8 KiB");
      }
      ++line_bytes_;
      if (c == ':' && line_bytes_ > 1) {
        state_ = State::kTrailerValue;
        return true;
      }
      return is_http_token({reinterpret_cast<const char*>(&c), 1}) ||
             fail(
                 400, "bad_trailer", "a trailer line is not a name, directly a colon, and a value");
    case State::kTrailerValue:
      if (++trailer_bytes_ > kMaxTrailerBytes) {
        return fail(431, "trailers_too_large", "the trailer fields are larger than 8 KiB");
      }
      if (c == '\r') {
        state_ = State::kTrailerLf;
        return true;
      }
      return is_text(c) || fail(400, "bad_trailer", "a control character in a trailer field");
    case State::kTrailerLf:
      line_bytes_ = 0;
      return expect('\n', State::kTrailerStart);
    case State::kEndLf:
      return expect('\n', State::kDone);
    case State::kData:
    case State::kDone:
      return true;  // feed() does not come here with them
  }
  return fail(400, "chunk_line_too_long", "a chunk line is longer than 1 KiB");
}

bool ChunkedDecoder::end_of_size_line(size_t body_bytes) {
  if (chunk_bytes_ > max_body_bytes_ - body_bytes) {
    return fail(413,
                "body_too_large",
                "the request body is larger than the limit of " + std::to_string(max_body_bytes_) +
                    " bytes (--max-body-bytes)");
  }
  const uint64_t fair = 16 + 2 * chunk_bytes_;
  excess_bytes_ += line_bytes_ + 2;
  excess_bytes_ = excess_bytes_ > fair ? excess_bytes_ - fair : 0;
  if (excess_bytes_ > kMaxExcessBytes) {
    return fail(400, "chunk_overhead", "the chunk lines are much longer than the data in them");
  }
  state_ = chunk_bytes_ == 0 ? State::kTrailerStart : State::kData;
  digits_ = 0;
  line_bytes_ = 0;
  return true;
}

}  // namespace flotilla
