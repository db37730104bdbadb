#include "common/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cmath>
#include <memory>

#include "common/json.h"

namespace flotilla {
namespace {

struct Logger {
  std::shared_ptr<spdlog::logger> sink = spdlog::stderr_logger_mt("flotilla");
  LogOptions options;
  std::atomic<LogLevel> level{LogLevel::kInfo};

  Logger() { sink->set_pattern("%v"); }
};

Logger& logger() {
  static Logger* instance = new Logger;  // never destroyed: other threads may log during exit
  return *instance;
}

std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
    case LogLevel::kOff:
      return "off";
  }
  return "off";
}

std::string timestamp() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char buffer[64];
  const size_t n = strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(buffer + n, sizeof buffer - n, ".%03ldZ", now.tv_nsec / 1'000'000);
  return buffer;
}

bool plain(std::string_view value) {
  if (value.empty()) return false;
  for (const char c : value) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 127) return false;
  }
  return true;
}

}  // namespace

std::string LogField::format_double(double v) {
  if (!std::isfinite(v)) return "null";
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.6g", v);
  return buffer;
}

void configure_logging(const LogOptions& options) {
  logger().options = options;
  logger().level = options.level;
}

bool parse_log_level(std::string_view name, LogLevel* level) {
  for (const LogLevel candidate :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError, LogLevel::kOff}) {
    if (name == level_name(candidate)) {
      *level = candidate;
      return true;
    }
  }
  return false;
}

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  Logger& log = logger();
  if (level < log.level.load(std::memory_order_relaxed)) return;
  std::string line;
  if (log.options.json) {
    JsonWriter json(&line);
    json.begin_object();
    json.field("time", timestamp());
    json.field("level", level_name(level));
    if (!log.options.component.empty()) json.field("component", log.options.component);
    if (log.options.rank >= 0) json.field("rank", log.options.rank);
    json.field("event", event);
    for (const LogField& field : fields) {
      json.key(field.key);
      if (field.quoted) {
        json.value(std::string_view(field.value));
      } else {
        json.raw(field.value);
      }
    }
    json.end_object();
  } else {
    line = timestamp();
    line += ' ';
    line += level_name(level);
    if (log.options.rank >= 0) {
      line += " rank=";
      line += std::to_string(log.options.rank);
    }
    line += " event=";
    if (plain(event)) {
      line += event;
    } else {
      append_json_string(&line, event);
    }
    for (const LogField& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      if (field.quoted && !plain(field.value)) {
        append_json_string(&line, field.value);
      } else {
        line += field.value;
      }
    }
  }
  if (log.options.write) return log.options.write(std::move(line));
  log.sink->log(spdlog::level::critical, "{}", line);
}

}  // namespace flotilla
