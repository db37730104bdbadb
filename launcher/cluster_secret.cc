#include "launcher/cluster_secret.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string_view>

#include "common/crypto.h"

namespace flotilla {
namespace {

constexpr size_t kMinText = 16;
constexpr size_t kMaxText = 4096;

StatusOr<std::string> secret_of_text(std::string_view text, const std::string& where) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  if (text.size() < kMinText) {
    return invalid_argument(where + ": got " + std::to_string(text.size()) +
                            " bytes, expected at least " + std::to_string(kMinText) +
                            " (make one: head -c 32 /dev/urandom | base64)");
  }
  return std::string(as_bytes(sha256(text)));
}

}  // namespace

StatusOr<std::string> find_cluster_secret(const std::string& file, const Environment& environment) {
  if (!file.empty()) {
    const StatusOr<std::string> text = read_file(file, kMaxText);
    if (!text.ok())
      return Status(text.status().code(), "--cluster-secret-file: " + text.status().message());
    return secret_of_text(*text, "--cluster-secret-file " + file);
  }
  const auto found = environment.find(kClusterSecretVariable);
  if (found != environment.end() && !found->second.empty()) {
    return secret_of_text(found->second, kClusterSecretVariable);
  }
  return random_bytes(kClusterSecretBytes);
}

StatusOr<UniqueFd> make_secret_memfd(const std::string& secret) {
  check(secret.size() == kClusterSecretBytes, "a cluster secret has 32 bytes");
  UniqueFd fd(memfd_create("flotilla-secret", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return errno_status("memfd_create");
  FLOTILLA_RETURN_IF_ERROR(write_fully(fd.get(), std::as_bytes(std::span(secret))));
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return errno_status("sealing a memfd");
  }
  return fd;
}

StatusOr<std::string> read_secret_memfd(int fd) {
  std::string secret(kClusterSecretBytes + 1, '\0');
  const ssize_t n = ::pread(fd, secret.data(), secret.size(), 0);
  if (n != static_cast<ssize_t>(kClusterSecretBytes)) {
    return invalid_argument("the secret's descriptor holds " + std::to_string(n) +
                            " bytes, expected " + std::to_string(kClusterSecretBytes));
  }
  secret.resize(kClusterSecretBytes);
  return secret;
}

}  // namespace flotilla
