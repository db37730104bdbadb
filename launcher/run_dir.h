// A private folder (0700) for the fleet's Unix sockets:
// ${XDG_RUNTIME_DIR:-/tmp}/flotilla-<pid>-<random>.
#pragma once

#include <string>

#include "common/fd.h"
#include "common/flags/flags.h"
#include "common/status.h"

namespace flotilla {

class RunDir {
 public:
  // Also removes folders of launchers of this user that were killed.
  static StatusOr<RunDir> create(const Environment& environment);
  // Where create() would put it; for --dry-run.
  static std::string pattern(const Environment& environment);

  RunDir(RunDir&&) = default;
  RunDir& operator=(RunDir&&) = delete;
  ~RunDir();  // removes it with all it holds

  const std::string& path() const { return path_; }

 private:
  RunDir() = default;
  std::string path_;
  UniqueFd lock_;  // held as long as the folder is in use, on any process namespace that shares the
                   // file system
};

}  // namespace flotilla
