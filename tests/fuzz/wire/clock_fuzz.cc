// Bytes from ranks as the step clock reads them, on three connections at once: whatever they say,
// the clock's promises hold.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "common/log.h"
#include "common/wire/frame.h"
#include "launcher/step_clock.h"

using namespace flotilla;

namespace {

struct Output final : StepClockOutput {
  void send(ConnectionId connection, const wire::FromClock& message) override {
    check(connection >= 1 && connection <= 3, "a known connection");
    if (message.has_group()) {
      check(message.group().members_size() >= 1, "a group has members");
      check(message.group().epoch() > last_epoch || message.group().epoch() == group_epoch,
            "epochs grow");
      last_epoch = group_epoch = message.group().epoch();
    }
    if (message.has_go())
      check(message.go().epoch() == last_epoch, "steps are of the newest epoch");
  }
  void close(ConnectionId connection) override { closed[connection] = true; }
  void progress(Rank, int64_t, const std::string&, double) override {}
  void serving(Rank, int64_t, double) override {}
  void hung(Rank, int64_t, const std::string&) override {}
  void refused(Rank, int64_t, const std::string&) override {}
  uint64_t last_epoch = 0, group_epoch = 0;
  bool closed[4] = {};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  configure_logging({.level = LogLevel::kOff});
  Output output;
  StepClock clock({.num_ranks = 3}, output);
  auto now = StepClock::Clock::time_point(std::chrono::seconds(1000));
  // Each piece: whom it is from, its length, its bytes.
  while (size >= 2) {
    const ConnectionId from = data[0] % 3 + 1;
    const size_t n = std::min<size_t>(data[1], size - 2);
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, n);
    if (data[0] >= 0xF0) {
      now += std::chrono::seconds(data[0] - 0xEF);
      clock.on_timer(now);
    } else if (data[0] >= 0xE8) {
      clock.on_disconnect(from);
      output.closed[from] = false;
    } else if (wire::ToClock message;
               !output.closed[from] && message.ParseFromArray(bytes.data(), static_cast<int>(n))) {
      if (message.has_hello() && message.hello().num_experts() > 64)
        message.mutable_hello()->set_num_experts(64);
      clock.on_message(from, message, now);
    }
    data += 2 + n;
    size -= 2 + n;
  }
  return 0;
}
