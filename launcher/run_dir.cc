#include "launcher/run_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/crypto.h"

namespace flotilla {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "flotilla-";
constexpr size_t kMaxBase = 50;  // a Unix socket's path has at most 107 bytes in all

std::string base_folder(const Environment& environment) {
  const auto found = environment.find("XDG_RUNTIME_DIR");
  if (found != environment.end() && found->second.starts_with("/") &&
      found->second.size() <= kMaxBase && access(found->second.c_str(), W_OK | X_OK) == 0) {
    return found->second;
  }
  return "/tmp";
}

void remove_abandoned(const std::string& base) {
  std::error_code error;
  for (fs::directory_iterator entry(base, error), end; entry != end && !error;
       entry.increment(error)) {
    const std::string path = entry->path();
    if (!entry->path().filename().string().starts_with(kPrefix)) continue;
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid())
      continue;
    const UniqueFd lock(::open((path + "/lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!lock || flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
}

}  // namespace

std::string RunDir::pattern(const Environment& environment) {
  return base_folder(environment) + "/" + kPrefix + "<pid>-<random>";
}

StatusOr<RunDir> RunDir::create(const Environment& environment) {
  const std::string base = base_folder(environment);
  remove_abandoned(base);
  RunDir dir;
  const std::string path =
      base + "/" + kPrefix + std::to_string(getpid()) + "-" + to_hex(random_bytes(4));
  if (mkdir(path.c_str(), 0700) != 0) {
    return invalid_argument("cannot make the private folder " + path + ": " + std::strerror(errno) +
                            "; set XDG_RUNTIME_DIR to a folder that this user may write");
  }
  dir.path_ = path;
  // Locked before it gets its name: a lock that can be taken is an abandoned one.
  const std::string fresh = path + "/lock.new";
  dir.lock_.reset(::open(fresh.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!dir.lock_ || flock(dir.lock_.get(), LOCK_EX | LOCK_NB) != 0 ||
      rename(fresh.c_str(), (path + "/lock").c_str()) != 0) {
    const Status status = errno_status("cannot lock " + path);
    std::error_code ignored;
    fs::remove_all(path, ignored);
    return status;
  }
  return dir;
}

RunDir::~RunDir() {
  if (path_.empty() || !lock_) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace flotilla
