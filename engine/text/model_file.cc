#include "engine/text/model_file.h"

#include <filesystem>
#include <fstream>

namespace flotilla::text {

StatusOr<std::string> read_model_file(const std::string& path, size_t max_bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return not_found(path + " does not exist");
  if (!std::filesystem::is_regular_file(status)) {
    return invalid_argument(path + " is not a regular file");
  }
  const auto size = std::filesystem::file_size(path, error);
  if (error) return invalid_argument(path + ": " + error.message());
  if (size > max_bytes) {
    return invalid_argument(path + " has " + std::to_string(size) + " bytes; at most " +
                            std::to_string(max_bytes) + " are read");
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes(size, '\0');
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return invalid_argument(path + " cannot be read");
  }
  return bytes;
}

StatusOr<std::string> read_optional_model_file(const std::string& path, size_t max_bytes) {
  auto bytes = read_model_file(path, max_bytes);
  if (!bytes.ok() && bytes.status().code() == StatusCode::kNotFound) return std::string();
  return bytes;
}

}  // namespace flotilla::text
