// What the user sees of a fleet that starts: one line per rank, then one line when all are ready.
// On a terminal the lines of ranks that are not ready are rewritten in place; elsewhere a line is
// printed when a stage begins and at most every two seconds.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "common/ids.h"
#include "launcher/console.h"

namespace flotilla {

// "loading", 0.37 → "loading 37 %"; a stage without a measure (fraction 0 or 1 of anything but
// loading) is its name.
std::string describe_stage(const std::string& stage, double fraction);

class FleetProgress {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  FleetProgress(Console* console, int num_ranks);

  void stage(Rank rank, const std::string& stage, double fraction, TimePoint now);
  // "down (signal 9 (Killed)), starting again in 2 s"
  void note(Rank rank, const std::string& text);
  void ready(Rank rank, double seconds);
  // "8 ranks ready: http://…"
  void all_ready(const std::vector<std::string>& urls);
  // No status lines any more.
  void clear();

 private:
  struct Line {
    std::string text;  // "" when there is nothing to show: ready, or gone
    std::string stage;
    TimePoint printed{};
  };
  void print(Rank rank, const std::string& text);
  void refresh();

  Console* console_;
  std::vector<Line> lines_;
};

}  // namespace flotilla
