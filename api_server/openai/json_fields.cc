#include "api_server/openai/json_fields.h"

#include <cmath>

#include "api_server/openai/schema.h"
#include "common/json.h"
#include "common/utf8.h"

namespace flotilla::openai {
namespace {

using simdjson::dom::element_type;

constexpr size_t kShownBytes = 64;

ApiError bad_json(std::string message) {
  return {invalid_argument(std::move(message)), "", "invalid_json"};
}

std::string_view why(simdjson::error_code error) {
  switch (error) {
    case simdjson::EMPTY:
      return "the body is empty, expected a JSON object";
    case simdjson::UTF8_ERROR:
      return "the body is not valid UTF-8";
    case simdjson::DEPTH_ERROR:
      return "the body nests deeper than 64 levels";
    case simdjson::STRING_ERROR:
      return "the body is not valid JSON: a string has a wrong escape or a lone surrogate";
    case simdjson::UNESCAPED_CHARS:
      return "the body is not valid JSON: a string holds an unescaped control character";
    case simdjson::UNCLOSED_STRING:
      return "the body is not valid JSON: a string does not end";
    case simdjson::NUMBER_ERROR:
      return "the body is not valid JSON: a number is malformed or out of range";
    default:
      return "the body is not valid JSON";
  }
}

std::string number_text(double value) {
  std::string text;
  append_json_number(&text, value);
  return text;
}

std::optional<double> as_double(Json value) {
  switch (value.type()) {
    case element_type::INT64:
      return static_cast<double>(value.get_int64().value_unsafe());
    case element_type::UINT64:
      return static_cast<double>(value.get_uint64().value_unsafe());
    case element_type::DOUBLE:
      return value.get_double().value_unsafe();
    default:
      return std::nullopt;
  }
}

std::optional<int64_t> as_integer(Json value) {
  if (value.type() == element_type::INT64) return value.get_int64().value_unsafe();
  if (value.type() == element_type::DOUBLE) {
    const double number = value.get_double().value_unsafe();
    // Below 2^53 every whole double is exactly one integer.
    if (std::trunc(number) == number && std::fabs(number) < 9007199254740992.0) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

std::string range_text(int64_t low, int64_t high) {
  return "an integer from " + std::to_string(low) + " to " + std::to_string(high);
}

}  // namespace

Complaint JsonDocument::parse(std::string_view body) {
  if (body.empty()) return bad_json(std::string(why(simdjson::EMPTY)));
  if (const auto error = parser_.allocate(body.size(), kMaxJsonDepth); error) {
    return ApiError{
        resource_exhausted("no memory for a body of " + std::to_string(body.size()) + " bytes")};
  }
  Json root;
  if (const auto error = parser_.parse(body.data(), body.size()).get(root); error) {
    return bad_json(std::string(why(error)));
  }
  if (root.get(root_) != simdjson::SUCCESS) {
    return bad_json("the body is " + shown(root) + ", expected a JSON object");
  }
  return std::nullopt;
}

std::string shown(Json value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return "a list of " + std::to_string(value.get_array().value_unsafe().size());
    case element_type::OBJECT:
      return "an object";
    case element_type::NULL_VALUE:
      return "null";
    case element_type::BOOL:
      return value.get_bool().value_unsafe() ? "true" : "false";
    case element_type::INT64:
      return std::to_string(value.get_int64().value_unsafe());
    case element_type::UINT64:
      return std::to_string(value.get_uint64().value_unsafe());
    case element_type::DOUBLE:
      return number_text(value.get_double().value_unsafe());
    case element_type::STRING:
      break;
  }
  const std::string_view text = value.get_string().value_unsafe();
  std::string quoted;
  append_json_string(&quoted, text.substr(0, utf8_complete_prefix(text.substr(0, kShownBytes))));
  if (text.size() > kShownBytes) quoted += "… (" + std::to_string(text.size()) + " bytes)";
  return quoted;
}

ApiError complaint(const Field& field, std::string_view expected) {
  return ApiError::bad_value(
      field.path,
      field.path + ": got " + shown(field.value) + ", expected " + std::string(expected));
}

Complaint read(const Field& field, bool* out) {
  if (field.value.get(*out) != simdjson::SUCCESS) return complaint(field, "true or false");
  return std::nullopt;
}

Complaint read(const Field& field, NumberRange range, std::optional<double>* out) {
  const std::optional<double> number = as_double(field.value);
  const bool good = number && *number <= range.high &&
                    (range.low_is_excluded ? *number > range.low : *number >= range.low);
  if (!good) {
    std::string expected = "a number ";
    if (std::isinf(range.high) || range.high > 1e30) {
      expected += (range.low_is_excluded ? "above " : "of at least ") + number_text(range.low);
    } else {
      expected += "from " + number_text(range.low) + " to " + number_text(range.high);
    }
    return complaint(field, expected);
  }
  *out = number;
  return std::nullopt;
}

Complaint read(const Field& field, int64_t low, int64_t high, int64_t* out) {
  const std::optional<int64_t> number = as_integer(field.value);
  if (!number || *number < low || *number > high) return complaint(field, range_text(low, high));
  *out = *number;
  return std::nullopt;
}

Complaint read(const Field& field, int64_t low, int64_t high, std::optional<int64_t>* out) {
  int64_t number = 0;
  if (auto wrong = read(field, low, high, &number)) return wrong;
  *out = number;
  return std::nullopt;
}

Complaint read(const Field& field, size_t max_bytes, std::string* out) {
  std::string_view text;
  if (field.value.get(text) != simdjson::SUCCESS || text.size() > max_bytes) {
    return complaint(field, "a string of at most " + std::to_string(max_bytes) + " bytes");
  }
  out->assign(text);
  return std::nullopt;
}

Complaint read(const Field& field,
               size_t max_count,
               size_t max_bytes,
               std::vector<std::string>* out) {
  simdjson::dom::array list;
  if (field.value.get(list) != simdjson::SUCCESS || list.size() > max_count) {
    return complaint(field, "a list of at most " + std::to_string(max_count) + " strings");
  }
  out->clear();
  for (const Json element : list) {
    const Field item = field.at(out->size(), element);
    std::string text;
    if (auto wrong = read(item, max_bytes, &text)) return wrong;
    if (text.empty()) return complaint(item, "a string that is not empty");
    out->push_back(std::move(text));
  }
  return std::nullopt;
}

Complaint read(const Field& field,
               size_t max_count,
               int64_t vocab_size,
               std::vector<TokenId>* out) {
  simdjson::dom::array list;
  // simdjson counts at most 2^24 − 1 elements of a list, so the bound is checked once more below.
  if (field.value.get(list) != simdjson::SUCCESS || list.size() > max_count) {
    return complaint(field, "a list of at most " + std::to_string(max_count) + " token ids");
  }
  out->clear();
  out->reserve(list.size());
  for (const Json element : list) {
    if (out->size() >= max_count) {
      return complaint(field, "a list of at most " + std::to_string(max_count) + " token ids");
    }
    const std::optional<int64_t> id = as_integer(element);
    if (!id || *id < 0 || *id >= vocab_size) {
      return complaint(field.at(out->size(), element),
                       "a token id of the vocabulary, " + range_text(0, vocab_size - 1));
    }
    out->push_back(static_cast<TokenId>(*id));
  }
  return std::nullopt;
}

bool is_switched_off(Json value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return value.get_array().value_unsafe().size() == 0;
    case element_type::OBJECT:
      return value.get_object().value_unsafe().size() == 0;
    case element_type::NULL_VALUE:
      return true;
    case element_type::BOOL:
      return !value.get_bool().value_unsafe();
    case element_type::STRING:
      return value.get_string().value_unsafe().empty();
    default:
      return as_double(value) == 0.0;
  }
}

}  // namespace flotilla::openai
