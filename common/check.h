// Broken invariants end the process; the supervisor restarts this rank and the others go on. User
// input never gets here.
#pragma once

#include <source_location>
#include <string_view>

namespace flotilla {

[[noreturn]] void check_failed(std::string_view message, std::source_location where);

inline void check(bool condition,
                  std::string_view message,
                  std::source_location where = std::source_location::current()) {
  if (!condition) [[unlikely]]
    check_failed(message, where);
}

}  // namespace flotilla
