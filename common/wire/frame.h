// Frames on every internal connection: a 32-bit little-endian length, then that many bytes of one
// protobuf message. A length above the connection's limit is a protocol error, seen before anything
// is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/status.h"

namespace google::protobuf {
class MessageLite;
}

namespace flotilla {

inline constexpr size_t kFrameHeaderBytes = 4;
inline constexpr size_t kMaxClockFrame = 1u << 20;   // a group of 10,000 experts fits
inline constexpr size_t kMaxQueueFrame = 16u << 20;  // a prompt of 2 million tokens fits

// Appends one frame to `out`.
void append_frame(std::string* out, const google::protobuf::MessageLite& message);

// Cuts a byte stream into frames. Feed what was read, then take frames until nullopt.
class FrameReader {
 public:
  explicit FrameReader(size_t max_frame_bytes) : max_frame_bytes_(max_frame_bytes) {}

  void feed(std::string_view bytes);
  // The next whole frame's payload, valid until the next call of feed(). kInvalidArgument if its
  // length is over the limit: the stream cannot be read any further.
  StatusOr<std::optional<std::string_view>> next();

 private:
  size_t max_frame_bytes_;
  std::string buffer_;
  size_t consumed_ = 0;
};

}  // namespace flotilla
