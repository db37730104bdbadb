#include "launcher/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace flotilla {
namespace {

constexpr auto kPlainInterval = std::chrono::seconds(2);
constexpr size_t kMaxStatusLines = 16;

}  // namespace

std::string describe_stage(const std::string& stage, double fraction) {
  if (stage != "loading" && !(fraction > 0.0 && fraction < 1.0)) return stage;
  const double percent = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) * 100.0 : 0.0;
  return stage + " " + std::to_string(static_cast<int>(percent)) + " %";
}

FleetProgress::FleetProgress(Console* console, int num_ranks)
    : console_(console), lines_(static_cast<size_t>(num_ranks)) {}

void FleetProgress::print(Rank rank, const std::string& text) {
  console_->write(OutputStream::kOut, "rank " + std::to_string(rank.value) + ": " + text + "\n");
}

void FleetProgress::stage(Rank rank, const std::string& stage, double fraction, TimePoint now) {
  Line& line = lines_[static_cast<size_t>(rank.value)];
  line.text = describe_stage(stage, fraction);
  if (console_->is_terminal()) return refresh();
  if (stage == line.stage && now - line.printed < kPlainInterval) return;
  line.stage = stage;
  line.printed = now;
  print(rank, line.text);
}

void FleetProgress::note(Rank rank, const std::string& text) {
  Line& line = lines_[static_cast<size_t>(rank.value)];
  line.text = text;
  line.stage.clear();
  if (console_->is_terminal()) return refresh();
  print(rank, text);
}

void FleetProgress::ready(Rank rank, double seconds) {
  Line& line = lines_[static_cast<size_t>(rank.value)];
  line.text.clear();
  line.stage.clear();
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "ready in %.1f s", seconds);
  refresh();
  print(rank, buffer);
}

void FleetProgress::all_ready(const std::vector<std::string>& urls) {
  std::string text =
      std::to_string(lines_.size()) + (lines_.size() == 1 ? " rank ready:" : " ranks ready:");
  for (const std::string& url : urls) text += " " + url;
  console_->write(OutputStream::kOut, text + "\n");
}

void FleetProgress::clear() {
  for (Line& line : lines_) line.text.clear();
  refresh();
}

void FleetProgress::refresh() {
  if (!console_->is_terminal()) return;
  std::vector<std::string> shown;
  size_t more = 0;
  for (size_t i = 0; i < lines_.size(); ++i) {
    if (lines_[i].text.empty()) continue;
    if (shown.size() == kMaxStatusLines) {
      ++more;
    } else {
      shown.push_back("rank " + std::to_string(i) + ": " + lines_[i].text);
    }
  }
  if (more > 0) shown.push_back("… and " + std::to_string(more) + " more ranks");
  console_->set_status(std::move(shown));
}

}  // namespace flotilla
