#include <algorithm>
#include <cmath>

#include "engine/text/json_fields.h"
#include "engine/text/tokenizer_parts.h"

namespace flotilla::text {
namespace {

// A token is a string or an object with the string under "content"; other values stand for none.
std::optional<std::string> token_string(JsonElement element) {
  std::string_view text;
  if (element.get(text) == simdjson::SUCCESS) return std::string(text);
  if (element.at_key("content").get(text) == simdjson::SUCCESS) return std::string(text);
  return std::nullopt;
}

void read_special_tokens(JsonObject object, TokenizerConfig* config) {
  const auto add = [config](std::string_view role, JsonElement value) {
    const auto token = token_string(value);
    if (token && !token->empty() && !config->special_token(role)) {
      config->special_tokens.emplace_back(role, *token);
    }
  };
  for (const auto [key, value] : object) {
    if (key.ends_with("_token") && !key.starts_with("add_")) add(key, value);
    JsonObject extra;
    if (key == "extra_special_tokens" && value.get(extra) == simdjson::SUCCESS) {
      for (const auto [role, token] : extra) add(role, token);
    }
    JsonArray more;
    if ((key == "additional_special_tokens" || key == "extra_special_tokens") &&
        value.get(more) == simdjson::SUCCESS) {
      for (const JsonElement element : more) {
        const auto token = token_string(element);
        if (token && std::ranges::find(config->additional_special_tokens, *token) ==
                         config->additional_special_tokens.end()) {
          config->additional_special_tokens.push_back(*token);
        }
      }
    }
  }
}

Status read_object(std::string_view json, std::string_view name, TokenizerConfig* config) {
  if (json.empty()) return ok_status();
  simdjson::dom::parser parser;
  auto document = parse_json(&parser, json, name);
  if (!document.ok()) return document.status();
  JsonObject object;
  if (document->get(object) != simdjson::SUCCESS) {
    return invalid_argument(std::string(name) + " must be an object");
  }
  read_special_tokens(object, config);
  double length;
  if (object.at_key("model_max_length").get(length) == simdjson::SUCCESS && length >= 1) {
    // Files without a limit say 1e30.
    config->model_max_length = length < 9e18 ? static_cast<int64_t>(length) : INT64_MAX;
  }
  return ok_status();
}

}  // namespace

Status parse_tokenizer_config(std::string_view config_json,
                              std::string_view special_tokens_json,
                              TokenizerConfig* config) {
  FLOTILLA_RETURN_IF_ERROR(read_object(config_json, "tokenizer_config.json", config));
  return read_object(special_tokens_json, "special_tokens_map.json", config);
}

}  // namespace flotilla::text
