// Metadata of a GGUF file by key, typed and bounded; errors name the key.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "tools/convert/gguf.h"

namespace flotilla::convert {

// The first error sticks, so that a reader reads as a list.
class GgufFields {
 public:
  explicit GgufFields(const GgufContents& contents) : contents_(contents) {}

  const Status& status() const { return status_; }
  bool has(std::string_view key) const { return contents_.metadata.contains(key); }

  int64_t integer(std::string_view key, int64_t low, int64_t high);
  std::optional<int64_t> integer_if(std::string_view key, int64_t low, int64_t high);
  double number(std::string_view key, double low, double high);
  bool boolean_or(std::string_view key, bool fallback);
  std::optional<std::string_view> text_if(std::string_view key);
  // nullptr if it is absent or of another type.
  const std::vector<std::string_view>* strings(std::string_view key);
  const GgufIntegers* integers(std::string_view key);

  void fail(std::string message) {
    if (status_.ok()) status_ = invalid_argument(std::move(message));
  }
  void unsupported(std::string message) {
    if (status_.ok()) status_ = unimplemented(std::move(message));
  }

 private:
  template <typename T>
  const T* find(std::string_view key, std::string_view expected);
  template <typename T>
  const T* need(std::string_view key, std::string_view expected);

  const GgufContents& contents_;
  Status status_;
};

}  // namespace flotilla::convert
