// A chunked body alone: the first byte says how the rest is cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api_server/http/chunked_decoder.h"
#include "common/check.h"

using namespace flotilla;

namespace {

constexpr size_t kMaxBodyBytes = 300;

struct Outcome {
  ChunkedDecoder::Result result = ChunkedDecoder::Result::kNeedMore;
  std::string body = {};
  std::string error = {};
  size_t consumed = 0;
};

Outcome decode(std::string_view bytes, size_t step) {
  ChunkedDecoder decoder(kMaxBodyBytes);
  Outcome out;
  while (out.result == ChunkedDecoder::Result::kNeedMore && out.consumed < bytes.size()) {
    size_t consumed = 0;
    out.result = decoder.feed(bytes.substr(out.consumed, step), &out.body, &consumed);
    out.consumed += consumed;
    check(consumed > 0, "each call makes progress");
    check(out.body.size() <= kMaxBodyBytes, "a body is within its limit");
  }
  out.error = std::string(decoder.error().code);
  check((out.result == ChunkedDecoder::Result::kError) == !out.error.empty(), "errors have a code");
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  const Outcome whole = decode(bytes, std::max<size_t>(bytes.size(), 1));
  const Outcome cut = decode(bytes, 1 + data[0] % 64);
  check(cut.result == whole.result && cut.body == whole.body && cut.error == whole.error &&
            cut.consumed == whole.consumed,
        "cuts do not matter");
  if (whole.result == ChunkedDecoder::Result::kDone) {
    check(bytes.substr(0, whole.consumed).ends_with("\r\n\r\n"), "a body ends with an empty line");
  }
  return 0;
}
