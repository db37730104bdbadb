// Reading the small files of a model's folder.
#pragma once

#include <cstddef>
#include <string>

#include "common/status.h"

namespace flotilla::text {

// The whole file. kNotFound if there is none; kInvalidArgument if it is no regular file or larger
// than max_bytes.
StatusOr<std::string> read_model_file(const std::string& path, size_t max_bytes);

// The same, but an absent file is empty.
StatusOr<std::string> read_optional_model_file(const std::string& path, size_t max_bytes);

}  // namespace flotilla::text
