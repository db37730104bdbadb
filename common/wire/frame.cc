#include "common/wire/frame.h"

#include <google/protobuf/message_lite.h>

#include <cstring>

namespace flotilla {

void append_frame(std::string* out, const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  const size_t at = out->size();
  out->resize(at + kFrameHeaderBytes + size);
  const auto length = static_cast<uint32_t>(size);
  std::memcpy(out->data() + at, &length, kFrameHeaderBytes);  // little-endian host (x86-64)
  message.SerializeWithCachedSizesToArray(
      reinterpret_cast<uint8_t*>(out->data() + at + kFrameHeaderBytes));
}

void FrameReader::feed(std::string_view bytes) {
  buffer_.erase(0, consumed_);
  consumed_ = 0;
  buffer_.append(bytes);
}

StatusOr<std::optional<std::string_view>> FrameReader::next() {
  const std::string_view rest = std::string_view(buffer_).substr(consumed_);
  if (rest.size() < kFrameHeaderBytes) return std::optional<std::string_view>();
  uint32_t length;
  std::memcpy(&length, rest.data(), kFrameHeaderBytes);
  if (length > max_frame_bytes_) {
    return invalid_argument("frame of " + std::to_string(length) + " bytes, the limit is " +
                            std::to_string(max_frame_bytes_));
  }
  if (rest.size() < kFrameHeaderBytes + length) return std::optional<std::string_view>();
  consumed_ += kFrameHeaderBytes + length;
  return std::optional<std::string_view>(rest.substr(kFrameHeaderBytes, length));
}

}  // namespace flotilla
