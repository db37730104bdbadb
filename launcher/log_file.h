// A rank's log file: its output, untagged, appended and renamed when it grows large (spdlog's
// rotating file).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"

namespace flotilla {

struct LogFileOptions {
  std::string path;          // folders are made
  int64_t rotate_bytes = 0;  // 0: never
  int backup_count = 0;      // x.1.log … x.N.log
};

class LogFile {
 public:
  static StatusOr<LogFile> open(const LogFileOptions& options);
  LogFile(LogFile&&) noexcept;
  ~LogFile();

  // One line without its end. An error (disk full) is warned about once until a line works again.
  void append(std::string_view line);
  void flush();

 private:
  struct Impl;
  explicit LogFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla
