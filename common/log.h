// One line per event: time, level, event, then key=value pairs; or one JSON object with --log-json.
// Values are escaped, so that no text of a user can forge a line. Never log a prompt or a generated
// text.
#pragma once

#include <concepts>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

namespace flotilla {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  bool json = false;
  int rank = -1;               // added to every line as rank=… when ≥ 0
  std::string component = {};  // "launcher", "api_server", "flotilla"
  std::function<void(std::string line)> write =
      {};  // takes lines (without line end) in place of stderr; any thread
};

// Call once in main(); before it, lines go out with the defaults. Lines go to stderr.
void configure_logging(const LogOptions& options);

// nullopt-free parse: false for a name that is none of debug, info, warn, error, off.
bool parse_log_level(std::string_view name, LogLevel* level);

struct LogField {
  std::string_view key;
  std::string value;
  bool quoted;  // text, as against a number or a boolean

  LogField(std::string_view k, std::string_view v) : key(k), value(v), quoted(true) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v), quoted(true) {}
  LogField(std::string_view k, const char* v) : key(k), value(v), quoted(true) {}
  LogField(std::string_view k, bool v) : key(k), value(v ? "true" : "false"), quoted(false) {}
  LogField(std::string_view k, std::integral auto v)
      : key(k), value(std::to_string(v)), quoted(false) {}
  LogField(std::string_view k, std::floating_point auto v)
      : key(k), value(format_double(static_cast<double>(v))), quoted(false) {}

 private:
  static std::string format_double(double v);
};

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

inline void log_debug(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kDebug, event, fields);
}
inline void log_info(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kInfo, event, fields);
}
inline void log_warn(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kWarn, event, fields);
}
inline void log_error(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kError, event, fields);
}

}  // namespace flotilla
