// Cuts what a process writes into whole lines.
#pragma once

#include <string>
#include <string_view>

namespace flotilla {

class LineSplitter {
 public:
  static constexpr size_t kMaxLine = 1u << 16;  // a longer line comes in pieces

  // Calls take(std::string_view line) for every line that is complete now, without its end.
  template <typename Take>
  void feed(std::string_view bytes, Take take) {
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      if (end == std::string_view::npos) {
        rest_ += bytes;
        while (rest_.size() > kMaxLine) {
          take(std::string_view(rest_).substr(0, kMaxLine));
          rest_.erase(0, kMaxLine);
        }
        return;
      }
      const std::string_view piece = bytes.substr(0, end);
      bytes.remove_prefix(end + 1);
      if (rest_.empty()) {
        give(piece, take);
      } else {
        rest_ += piece;
        give(rest_, take);
        rest_.clear();
      }
    }
  }

  // The process has ended: what stands without a line end is a line too.
  template <typename Take>
  void finish(Take take) {
    if (!rest_.empty()) give(rest_, take);
    rest_.clear();
  }

 private:
  template <typename Take>
  static void give(std::string_view line, Take take) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    while (line.size() > kMaxLine) {
      take(line.substr(0, kMaxLine));
      line.remove_prefix(kMaxLine);
    }
    take(line);
  }

  std::string rest_;
};

}  // namespace flotilla
