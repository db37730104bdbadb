// When a dead rank is started again: at once, unless it died early (before it was ready, or shortly
// after). Early deaths wait longer each time, and a row of them ends the fleet: something is wrong
// that another start will not mend.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

namespace flotilla {

struct RestartOptions {
  std::chrono::milliseconds early_window{2'000};  // ready for less than this is an early death
  std::chrono::milliseconds backoff_first{1'000};
  std::chrono::milliseconds backoff_max{30'000};
  int early_death_limit = 5;  // in a row
};

// Of one rank.
class RestartPolicy {
 public:
  explicit RestartPolicy(const RestartOptions& options) : options_(options) {}

  // How long to wait before the next start; nullopt: give up. `ready_for`: nullopt if it never was
  // ready.
  std::optional<std::chrono::milliseconds> after_death(
      std::optional<std::chrono::milliseconds> ready_for) {
    if (ready_for && *ready_for >= options_.early_window) {
      early_deaths_ = 0;
      return std::chrono::milliseconds(0);
    }
    if (++early_deaths_ >= options_.early_death_limit) return std::nullopt;
    auto wait = options_.backoff_first;
    for (int i = 1; i < early_deaths_ && wait < options_.backoff_max; ++i) wait *= 2;
    return std::min(wait, options_.backoff_max);
  }

  int early_deaths() const { return early_deaths_; }  // in a row, the last one included

 private:
  RestartOptions options_;
  int early_deaths_ = 0;
};

}  // namespace flotilla
