// What the exit code of our programs says. docs/flags.md lists the same table (made from
// kExitCodes).
#pragma once

#include <array>
#include <string_view>

namespace flotilla {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,
  kExitConfig = 2,
  kExitPortBusy = 3,
  kExitGaveUp = 4,
  kExitRefused = 5,
  kExitStreamsCut = 6,
};

struct ExitCodeRow {
  ExitCode code;
  std::string_view meaning;
};

inline constexpr std::array<ExitCodeRow, 7> kExitCodes = {{
    {kExitOk, "Done, or drained: every running stream ended whole."},
    {kExitFailure, "An error that no other code names; the last line on stderr says which."},
    {kExitConfig,
     "A flag, the configuration file or the model is wrong: starting again as it is cannot help. A "
     "rank that "
     "ends so before the fleet was ever ready ends the fleet at once with this code."},
    {kExitPortBusy, "A port is held by another process; nothing was started."},
    {kExitGaveUp,
     "One rank ended early (before it was ready or within 2 s after) five times in a row."},
    {kExitRefused, "The step clock refused a rank: a setting differs from the other ranks'."},
    {kExitStreamsCut,
     "Running streams were cut: a second signal came, --timeout-graceful-shutdown passed, or a "
     "rank died while "
     "the fleet drained."},
}};

}  // namespace flotilla
