#include "tools/convert/gguf_fields.h"

namespace flotilla::convert {

template <typename T>
const T* GgufFields::find(std::string_view key, std::string_view expected) {
  const auto it = contents_.metadata.find(key);
  if (it == contents_.metadata.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) {
    fail("metadata " + shown_name(key) + " is not " + std::string(expected));
  }
  return value;
}

template <typename T>
const T* GgufFields::need(std::string_view key, std::string_view expected) {
  if (!has(key)) fail("metadata " + shown_name(key) + " is missing");
  return find<T>(key, expected);
}

int64_t GgufFields::integer(std::string_view key, int64_t low, int64_t high) {
  if (!has(key)) fail("metadata " + shown_name(key) + " is missing");
  return integer_if(key, low, high).value_or(low);
}

std::optional<int64_t> GgufFields::integer_if(std::string_view key, int64_t low, int64_t high) {
  const auto* value = find<int64_t>(key, "a whole number");
  if (value == nullptr) return std::nullopt;
  if (*value >= low && *value <= high) return *value;
  fail("metadata " + shown_name(key) + " is " + std::to_string(*value) + ", allowed are " +
       std::to_string(low) + " to " + std::to_string(high));
  return std::nullopt;
}

double GgufFields::number(std::string_view key, double low, double high) {
  const auto* value = need<double>(key, "a float");
  if (value == nullptr) return low;
  if (*value >= low && *value <= high) return *value;
  fail("metadata " + shown_name(key) + " is " + std::to_string(*value) + ", allowed are " +
       std::to_string(low) + " to " + std::to_string(high));
  return low;
}

bool GgufFields::boolean_or(std::string_view key, bool fallback) {
  const auto* value = find<bool>(key, "true or false");
  return value == nullptr ? fallback : *value;
}

std::optional<std::string_view> GgufFields::text_if(std::string_view key) {
  const auto* value = find<std::string_view>(key, "a string");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

const std::vector<std::string_view>* GgufFields::strings(std::string_view key) {
  return need<std::vector<std::string_view>>(key, "a list of strings");
}

const GgufIntegers* GgufFields::integers(std::string_view key) {
  return need<GgufIntegers>(key, "a list of whole numbers");
}

}  // namespace flotilla::convert
