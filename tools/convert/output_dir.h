// A folder that appears whole or not at all: it is filled under another name next to its place and
// renamed when everything is there.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace flotilla::convert {

class OutputDir {
 public:
  // kFailedPrecondition if `path` is there and is no empty folder. Parents are made.
  static StatusOr<OutputDir> create(const std::string& path);
  OutputDir(OutputDir&& other) noexcept { *this = std::move(other); }
  OutputDir& operator=(OutputDir&& other) noexcept;
  ~OutputDir();  // removes what was not committed

  // Where to write.
  const std::string& path() const { return partial_; }
  Status write_file(const std::string& name, std::string_view content) const;
  Status copy_file(const std::string& from, const std::string& name) const;

  Status commit();

 private:
  OutputDir() = default;

  std::string final_;
  std::string partial_;  // empty: moved from, or committed
};

}  // namespace flotilla::convert
