#include "api_server/http/chunked_decoder.h"

#include <doctest/doctest.h>

#include "tests/api_server/http/malformed_requests.h"

using namespace flotilla;
using Result = ChunkedDecoder::Result;

namespace {

struct Decoded {
  Result result;
  std::string body;
  size_t consumed = 0;
  std::string code;
};

// Fed in pieces of `step` bytes.
Decoded decode(std::string_view bytes, size_t step, size_t max_body_bytes = 32 << 20) {
  ChunkedDecoder decoder(max_body_bytes);
  Decoded out{.result = Result::kNeedMore, .body = {}, .code = {}};
  while (out.result == Result::kNeedMore && out.consumed < bytes.size()) {
    size_t consumed = 0;
    out.result = decoder.feed(bytes.substr(out.consumed, step), &out.body, &consumed);
    out.consumed += consumed;
  }
  out.code = decoder.error().code;
  return out;
}

}  // namespace

TEST_CASE("ChunkedDecoder.JoinsChunksAndLeavesWhatFollows") {
  const std::string bytes =
      "5\r\nhello\r\n00A;name=value;flag\r\n wor\r\nld!!\r\n0;last\r\nTrailer: x\r\nOther:\r\n\r\n";
  for (const size_t step : {size_t{1}, size_t{2}, size_t{7}, bytes.size() + 3}) {
    const Decoded d = decode(bytes + "GET", step);
    CHECK(d.result == Result::kDone);
    CHECK(d.body == "hello wor\r\nld!!");
    CHECK(d.consumed == bytes.size());
  }
  CHECK(decode("0\r\n\r\n", 1).body.empty());
}

TEST_CASE("ChunkedDecoder.RefusesWhatCouldBeReadInTwoWays") {
  for (const MalformedRequest& bad : malformed_chunks()) {
    CAPTURE(bad.name);
    const Decoded whole = decode(bad.bytes, bad.bytes.size());
    CHECK(whole.result == Result::kError);
    CHECK(whole.code == bad.code);
    const Decoded cut = decode(bad.bytes, 1);
    CHECK(cut.result == Result::kError);
    CHECK(cut.code == bad.code);
    CHECK(cut.consumed == whole.consumed);
  }
}

TEST_CASE("ChunkedDecoder.NeverHoldsMoreThanTheLimit") {
  CHECK(decode("4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n", 1, 10).result == Result::kDone);
  const Decoded over = decode("4\r\nabcd\r\n7\r\nefghijk\r\n", 1, 10);
  CHECK(over.result == Result::kError);
  CHECK(over.code == "body_too_large");
  CHECK(over.body == "abcd");  // refused at the size line
}

TEST_CASE("ChunkedDecoder.ManySmallPlainChunksAreFine") {
  std::string bytes;
  for (int i = 0; i < 100'000; ++i) bytes += "1\r\nx\r\n";
  CHECK(decode(bytes + "0\r\n\r\n", 4096).body.size() == 100'000);
}
