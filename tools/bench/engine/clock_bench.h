// What the step clock costs: N clients that want every step, each in a thread of its own, against
// the real server on a Unix socket.
#pragma once

#include <cstdint>
#include <vector>

#include "common/status.h"

namespace flotilla::bench {

struct ClockBenchOptions {
  int32_t ranks = 8;
  int32_t steps = 20000;  // behind 1,000 that are not counted
  bool processes = true;  // each rank in a process of its own, as in a fleet; else threads
};

// Time of every counted step in microseconds: from a rank's want to its go, all ranks wanting as
// soon as they were let go; sorted.
StatusOr<std::vector<double>> bench_clock(const ClockBenchOptions& options);

}  // namespace flotilla::bench
