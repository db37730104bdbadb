// Reading fields of a parsed JSON object with errors that name the place.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace flotilla::text {

using JsonElement = simdjson::dom::element;
using JsonObject = simdjson::dom::object;
using JsonArray = simdjson::dom::array;

inline constexpr size_t kMaxJsonDepth = 64;

// The JSON type's name with its article, for messages.
std::string_view json_type_name(JsonElement element);

// An object and where it stands in its file ("tokenizer.json: model"). Absent and null fields are
// the same here.
class JsonFields {
 public:
  // `path` and the parser behind the object must outlive it.
  JsonFields(JsonObject object, std::string path) : object_(object), path_(std::move(path)) {}
  // Fails unless `element` is an object.
  static StatusOr<JsonFields> of(JsonElement element, std::string path);

  const std::string& path() const { return path_; }
  std::optional<JsonElement> find(std::string_view key) const;
  // kInvalidArgument with the path in front.
  Status error(std::string_view message) const;

  StatusOr<std::string> required_string(std::string_view key) const;
  StatusOr<std::string> string_or(std::string_view key, std::string fallback) const;
  StatusOr<bool> bool_or(std::string_view key, bool fallback) const;
  // A non-negative integer up to `max`.
  StatusOr<int64_t> required_int(std::string_view key, int64_t max) const;
  StatusOr<JsonArray> required_array(std::string_view key) const;
  StatusOr<JsonObject> required_object(std::string_view key) const;

 private:
  Status wrong(std::string_view key, std::string_view expected) const;

  JsonObject object_;
  std::string path_;
};

// Parses into `parser`, which owns the result. `what` names the file in errors.
StatusOr<JsonElement> parse_json(simdjson::dom::parser* parser,
                                 std::string_view json,
                                 std::string_view what);

}  // namespace flotilla::text
