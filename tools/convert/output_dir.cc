#include "tools/convert/output_dir.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

namespace flotilla::convert {
namespace {

namespace fs = std::filesystem;

}  // namespace

StatusOr<OutputDir> OutputDir::create(const std::string& path) {
  fs::path target = fs::path(path).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  std::error_code error;
  if (fs::exists(target, error) &&
      !(fs::is_directory(target, error) && fs::is_empty(target, error))) {
    return failed_precondition(path + " is there already: remove it, or name another folder");
  }
  if (!target.parent_path().empty()) {
    fs::create_directories(target.parent_path(), error);
    if (error) {
      return invalid_argument("cannot make " + target.parent_path().string() + ": " +
                              error.message());
    }
  }
  std::string partial = target.string() + ".partial-XXXXXX";
  if (::mkdtemp(partial.data()) == nullptr) {
    return invalid_argument("cannot make a folder next to " + path + ": " + std::strerror(errno));
  }
  fs::permissions(partial, fs::perms(0755), error);
  OutputDir dir;
  dir.final_ = target.string();
  dir.partial_ = std::move(partial);
  return dir;
}

OutputDir& OutputDir::operator=(OutputDir&& other) noexcept {
  std::swap(final_, other.final_);
  std::swap(partial_, other.partial_);
  return *this;
}

OutputDir::~OutputDir() {
  std::error_code error;
  if (!partial_.empty()) fs::remove_all(partial_, error);
}

Status OutputDir::write_file(const std::string& name, std::string_view content) const {
  const std::string path = partial_ + "/" + name;
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  return file ? ok_status() : errno_status("cannot write " + path);
}

Status OutputDir::copy_file(const std::string& from, const std::string& name) const {
  std::error_code error;
  fs::copy_file(from, partial_ + "/" + name, error);
  return error ? internal_error("cannot copy " + from + " to " + partial_ + ": " + error.message())
               : ok_status();
}

Status OutputDir::commit() {
  if (::rename(partial_.c_str(), final_.c_str()) != 0) {
    return errno_status("cannot rename " + partial_ + " to " + final_);
  }
  partial_.clear();
  return ok_status();
}

}  // namespace flotilla::convert
