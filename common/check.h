// Broken invariants end the process; the supervisor restarts this rank and the others go on. User
// input never gets here.
#pragma once

#include <string_view>

namespace flotilla {

// std::source_location as far as it is needed here: the fuzz targets' compiler, Debian 12's clang,
// does not have it.
struct SourceLocation {
  const char* file;
  int line;

  static constexpr SourceLocation current(const char* file = __builtin_FILE(),
                                          int line = __builtin_LINE()) {
    return {file, line};
  }
};

[[noreturn]] void check_failed(std::string_view message, SourceLocation where);

inline void check(bool condition,
                  std::string_view message,
                  SourceLocation where = SourceLocation::current()) {
  if (!condition) [[unlikely]]
    check_failed(message, where);
}

}  // namespace flotilla
