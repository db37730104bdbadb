// The messages of a chat and the variables for its template.
#include <algorithm>

#include "api_server/openai/schema_fields.h"
#include "common/json.h"

namespace flotilla::openai {
namespace {

constexpr size_t kAnyLength = static_cast<size_t>(-1);

Complaint read_role(const Field& field, Role* out) {
  std::string_view role;
  if (field.value.get(role) == simdjson::SUCCESS) {
    if (role == "system" || role == "developer") {
      *out = Role::kSystem;
      return std::nullopt;
    }
    if (role == "user") {
      *out = Role::kUser;
      return std::nullopt;
    }
    if (role == "assistant") {
      *out = Role::kAssistant;
      return std::nullopt;
    }
    if (role == "tool" || role == "function") {
      return ApiError::not_in_this_version(
          field.path, field.path + ": tool calling (role " + shown(field.value) + ")");
    }
  }
  return complaint(field, "\"system\", \"developer\", \"user\" or \"assistant\"");
}

Complaint read_text_part(const Field& part, std::string* out) {
  std::string_view text;
  std::string_view type;
  if (!part.value.is_object()) return complaint(part, "an object with a type");
  if (part.value["type"].get(type) != simdjson::SUCCESS) {
    return ApiError::bad_value(part.path + ".type",
                               part.path + ".type: missing or no string, expected \"text\"");
  }
  if (type != "text") {
    return ApiError::not_in_this_version(part.path + ".type",
                                         part.path + ".type: a part other than \"text\" (got " +
                                             shown(part.value["type"].value_unsafe()) + ")");
  }
  if (part.value["text"].get(text) != simdjson::SUCCESS) {
    return ApiError::bad_value(part.path + ".text",
                               part.path + ".text: missing or no string, expected a string");
  }
  out->append(text);
  return std::nullopt;
}

Complaint read_content(const Field& field, Role role, std::string* out) {
  if (field.value.is_null()) {
    if (role == Role::kAssistant) return std::nullopt;
    return complaint(field, "a string or a list of text parts (null is for role \"assistant\")");
  }
  std::string_view text;
  if (field.value.get(text) == simdjson::SUCCESS) {
    out->assign(text);
    return std::nullopt;
  }
  simdjson::dom::array parts;
  if (field.value.get(parts) != simdjson::SUCCESS) {
    return complaint(field, "a string or a list of text parts");
  }
  size_t index = 0;
  for (const Json element : parts) {
    if (index > 0) *out += '\n';
    if (auto wrong = read_text_part(field.at(index, element), out)) return wrong;
    ++index;
  }
  return std::nullopt;
}

Complaint read_message(const Field& field, ChatMessage* out) {
  simdjson::dom::object message;
  if (field.value.get(message) != simdjson::SUCCESS) {
    return complaint(field, "an object with role and content");
  }
  std::optional<Json> role, content;
  for (const auto [key, value] : message) {
    if (key == "role") role = value;
    if (key == "content") content = value;
    if (value.is_null()) continue;
    const Field member = field.at(key.substr(0, 64), value);
    if (key == "name") {
      if (auto wrong = read(member, 256, &out->name.emplace())) return wrong;
    } else if (key == "reasoning_content" || key == "reasoning") {
      if (auto wrong = read(member, kAnyLength, &out->reasoning_content.emplace())) return wrong;
    } else if ((key == "tool_calls" || key == "function_call" || key == "audio") &&
               !is_switched_off(value)) {
      return ApiError::not_in_this_version(
          member.path, member.path + (key == "audio" ? ": audio" : ": tool calling"));
    }
  }
  if (!role) {
    return ApiError::bad_value(
        field.path + ".role",
        field.path +
            ".role: missing, expected \"system\", \"developer\", \"user\" or \"assistant\"");
  }
  if (auto wrong = read_role(field.at("role", *role), &out->role)) return wrong;
  if (content) return read_content(field.at("content", *content), out->role, &out->content);
  if (out->role == Role::kAssistant) return std::nullopt;
  return ApiError::bad_value(
      field.path + ".content",
      field.path + ".content: missing, expected a string or a list of text parts");
}

}  // namespace

std::string_view to_string(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
  }
  return "user";
}

Complaint read_messages(const Field& field, std::vector<ChatMessage>* out) {
  simdjson::dom::array list;
  if (field.value.get(list) != simdjson::SUCCESS || list.size() == 0 ||
      list.size() > kMaxMessages) {
    return complaint(field, "a list of 1 to " + std::to_string(kMaxMessages) + " messages");
  }
  out->clear();
  out->reserve(list.size());
  for (const Json element : list) {
    const Field item = field.at(out->size(), element);
    if (auto wrong = read_message(item, &out->emplace_back())) return wrong;
  }
  return std::nullopt;
}

Complaint read_template_kwargs(const Field& field, TemplateKwargs* out) {
  simdjson::dom::object kwargs;
  if (field.value.get(kwargs) != simdjson::SUCCESS || kwargs.size() > kMaxTemplateKwargs) {
    return complaint(field,
                     "an object of at most " + std::to_string(kMaxTemplateKwargs) + " variables");
  }
  for (const auto [key, value] : kwargs) {
    std::string json = simdjson::minify(value);
    const auto it = std::find_if(
        out->begin(), out->end(), [&](const auto& kwarg) { return kwarg.first == key; });
    if (it == out->end()) {
      out->emplace_back(key, std::move(json));
    } else {
      it->second = std::move(json);
    }
  }
  return std::nullopt;
}

void set_default_kwarg(TemplateKwargs* kwargs, std::string_view name, std::string_view json) {
  for (const auto& [existing, value] : *kwargs) {
    if (existing == name) return;
  }
  kwargs->emplace_back(name, json);
}

std::string to_json(const TemplateKwargs& kwargs) {
  std::string out;
  if (kwargs.empty()) return out;
  JsonWriter json(&out);
  json.begin_object();
  for (const auto& [name, value] : kwargs) {
    json.key(name);
    json.raw(value);
  }
  json.end_object();
  return out;
}

std::string to_json(const std::vector<ChatMessage>& messages) {
  std::string out;
  JsonWriter json(&out);
  json.begin_array();
  for (const ChatMessage& message : messages) {
    json.begin_object();
    json.field("role", to_string(message.role));
    json.field("content", message.content);
    if (message.name) json.field("name", *message.name);
    if (message.reasoning_content) json.field("reasoning_content", *message.reasoning_content);
    json.end_object();
  }
  json.end_array();
  return out;
}

}  // namespace flotilla::openai
