#include "common/wire/frame.h"

#include <doctest/doctest.h>

#include "common/wire/clock.pb.h"

using namespace flotilla;

TEST_CASE("FrameReader.FindsFramesHoweverTheBytesAreCut") {
  wire::ToClock message;
  message.mutable_want()->set_epoch(3);
  message.mutable_want()->set_step(77);
  std::string bytes;
  append_frame(&bytes, message);
  append_frame(&bytes, message);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    FrameReader reader(kMaxClockFrame);
    int found = 0;
    for (const auto part :
         {std::string_view(bytes).substr(0, cut), std::string_view(bytes).substr(cut)}) {
      reader.feed(part);
      while (true) {
        auto frame = reader.next();
        REQUIRE(frame.ok());
        if (!frame->has_value()) break;
        wire::ToClock parsed;
        REQUIRE(parsed.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())));
        CHECK(parsed.want().step() == 77);
        ++found;
      }
    }
    CHECK(found == 2);
  }
}

TEST_CASE("FrameReader.RefusesALengthOverTheLimitBeforeItHasTheBytes") {
  FrameReader reader(100);
  reader.feed(std::string_view("\xff\xff\xff\x7f", 4));
  const auto frame = reader.next();
  REQUIRE_FALSE(frame.ok());
  CHECK(frame.status().message() == "frame of 2147483647 bytes, the limit is 100");
}
