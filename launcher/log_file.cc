#include "launcher/log_file.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/rotating_file_sink.h>

#include "common/log.h"

namespace flotilla {

struct LogFile::Impl {
  std::string path;
  std::shared_ptr<spdlog::sinks::sink> sink;
  bool failing = false;

  template <typename Action>
  void guarded(Action action) {
    try {
      action();
      failing = false;
    } catch (const std::exception& e) {
      if (!std::exchange(failing, true))
        log_warn("log_file_failed", {{"path", path}, {"error", e.what()}});
    }
  }
};

LogFile::LogFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LogFile::LogFile(LogFile&&) noexcept = default;
LogFile::~LogFile() = default;

StatusOr<LogFile> LogFile::open(const LogFileOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->path = options.path;
  try {
    if (options.rotate_bytes > 0) {
      impl->sink = std::make_shared<spdlog::sinks::rotating_file_sink_st>(
          options.path,
          static_cast<size_t>(options.rotate_bytes),
          static_cast<size_t>(options.backup_count));
    } else {
      impl->sink = std::make_shared<spdlog::sinks::basic_file_sink_st>(options.path);
    }
    impl->sink->set_pattern("%v");
  } catch (const std::exception& e) {
    return invalid_argument("cannot write the log file " + options.path + ": " + e.what());
  }
  return LogFile(std::move(impl));
}

void LogFile::append(std::string_view line) {
  impl_->guarded([&] {
    impl_->sink->log(spdlog::details::log_msg("", spdlog::level::info, {line.data(), line.size()}));
  });
}

void LogFile::flush() {
  impl_->guarded([&] { impl_->sink->flush(); });
}

}  // namespace flotilla
