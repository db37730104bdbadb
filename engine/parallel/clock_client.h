// A rank's connection to the step clock: whole messages in, whole messages out, nothing decided
// here. Threads: send() by any, the rest by the engine thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/mutex.h"
#include "common/status.h"
#include "common/wire/clock.pb.h"
#include "common/wire/frame.h"

namespace flotilla {

class ClockClient {
 public:
  // Connects to the Unix socket at `path`. kUnavailable if nobody listens there.
  static StatusOr<std::unique_ptr<ClockClient>> connect(const std::string& path);

  int fd() const { return fd_.get(); }  // readable when receive() has something
  // kUnavailable when the clock is gone; kDeadlineExceeded when it did not read for seconds.
  Status send(const wire::ToClock& message);
  // What has arrived; empty if nothing. kUnavailable when the clock is gone.
  StatusOr<std::vector<wire::FromClock>> receive();

 private:
  explicit ClockClient(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  Mutex send_mutex_;
  std::string send_buffer_ GUARDED_BY(send_mutex_);
  FrameReader frames_{kMaxClockFrame};
};

}  // namespace flotilla
