// Takes a chunked body apart while it comes in, strictly, with a bound on what it holds. Source:
// RFC 9112 §7.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api_server/http/http_message.h"

namespace flotilla {

class ChunkedDecoder {
 public:
  enum class Result { kNeedMore, kDone, kError };

  // A chunk line (size and extensions) is at most 1 KiB, all trailer fields together 8 KiB (checked
  // and dropped).
  static constexpr size_t kMaxLineBytes = 1 << 10;
  static constexpr size_t kMaxTrailerBytes = 8 << 10;
  // Framing may cost that much more than 16 bytes and twice the data of each chunk, over the whole
  // body: many tiny chunks with long extensions are work without content (as Go's net/http bounds
  // it).
  static constexpr size_t kMaxExcessBytes = 16 << 10;

  explicit ChunkedDecoder(size_t max_body_bytes) : max_body_bytes_(max_body_bytes) {}

  // Appends the data in `input` to `body` and sets `consumed`: on kDone what is behind it belongs
  // to the next request. The body never grows over max_body_bytes: a chunk that would make it so is
  // refused at its size line, with 413.
  Result feed(std::string_view input, std::string* body, size_t* consumed);
  const HttpError& error() const { return error_; }

 private:
  enum class State {
    kSize,       // hex digits
    kExtension,  // from ';' to CR
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerStart,  // first byte of a trailer line
    kTrailerName,
    kTrailerValue,
    kTrailerLf,
    kEndLf,
    kDone,
  };

  bool step(unsigned char c, size_t body_bytes);
  bool end_of_size_line(size_t body_bytes);
  bool fail(int status, std::string_view code, std::string message);

  const size_t max_body_bytes_;
  State state_ = State::kSize;
  uint64_t chunk_bytes_ = 0;  // of the chunk's data, still to come
  int digits_ = 0;
  size_t line_bytes_ = 0;
  size_t trailer_bytes_ = 0;
  size_t excess_bytes_ = 0;
  HttpError error_;
};

}  // namespace flotilla
