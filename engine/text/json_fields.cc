#include "engine/text/json_fields.h"

#include <utility>

namespace flotilla::text {

std::string_view json_type_name(JsonElement element) {
  using Type = simdjson::dom::element_type;
  switch (element.type()) {
    case Type::ARRAY:
      return "an array";
    case Type::OBJECT:
      return "an object";
    case Type::STRING:
      return "a string";
    case Type::BOOL:
      return "a boolean";
    case Type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

StatusOr<JsonFields> JsonFields::of(JsonElement element, std::string path) {
  JsonObject object;
  if (element.get(object) != simdjson::SUCCESS) {
    return invalid_argument(path + " must be an object, but is " +
                            std::string(json_type_name(element)));
  }
  return JsonFields(object, std::move(path));
}

std::optional<JsonElement> JsonFields::find(std::string_view key) const {
  JsonElement element;
  if (object_.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) {
    return std::nullopt;
  }
  return element;
}

Status JsonFields::error(std::string_view message) const {
  return invalid_argument(path_ + ": " + std::string(message));
}

Status JsonFields::wrong(std::string_view key, std::string_view expected) const {
  const auto element = find(key);
  return error("'" + std::string(key) + "' must be " + std::string(expected) + ", but is " +
               std::string(element ? json_type_name(*element) : "absent"));
}

StatusOr<std::string> JsonFields::required_string(std::string_view key) const {
  std::string_view text;
  const auto element = find(key);
  if (!element || element->get(text) != simdjson::SUCCESS) return wrong(key, "a string");
  return std::string(text);
}

StatusOr<std::string> JsonFields::string_or(std::string_view key, std::string fallback) const {
  if (!find(key)) return fallback;
  return required_string(key);
}

StatusOr<bool> JsonFields::bool_or(std::string_view key, bool fallback) const {
  const auto element = find(key);
  if (!element) return fallback;
  bool value;
  if (element->get(value) != simdjson::SUCCESS) return wrong(key, "true or false");
  return value;
}

StatusOr<int64_t> JsonFields::required_int(std::string_view key, int64_t max) const {
  int64_t value;
  const auto element = find(key);
  if (!element || element->get(value) != simdjson::SUCCESS || value < 0 || value > max) {
    return wrong(key, "an integer from 0 to " + std::to_string(max));
  }
  return value;
}

StatusOr<JsonArray> JsonFields::required_array(std::string_view key) const {
  JsonArray array;
  const auto element = find(key);
  if (!element || element->get(array) != simdjson::SUCCESS) return wrong(key, "an array");
  return array;
}

StatusOr<JsonObject> JsonFields::required_object(std::string_view key) const {
  JsonObject object;
  const auto element = find(key);
  if (!element || element->get(object) != simdjson::SUCCESS) return wrong(key, "an object");
  return object;
}

StatusOr<JsonElement> parse_json(simdjson::dom::parser* parser,
                                 std::string_view json,
                                 std::string_view what) {
  if (parser->allocate(json.size() + 1, kMaxJsonDepth) != simdjson::SUCCESS) {
    return invalid_argument(std::string(what) + " is too large: " + std::to_string(json.size()) +
                            " bytes");
  }
  JsonElement root;
  const auto error = parser->parse(json.data(), json.size(), true).get(root);
  if (error != simdjson::SUCCESS) {
    return invalid_argument(std::string(what) +
                            " is not valid JSON: " + simdjson::error_message(error));
  }
  return root;
}

}  // namespace flotilla::text
