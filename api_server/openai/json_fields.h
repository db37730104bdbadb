// Reading typed, bounded fields from simdjson's tree. Private to this folder: the only header here
// that names simdjson. Every complaint names the field, what was seen and what is allowed.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api_server/openai/error.h"
#include "engine/request.h"

namespace flotilla::openai {

using Json = simdjson::dom::element;
// What is wrong; nullopt is good.
using Complaint = std::optional<ApiError>;

// The tree of one body. Elements point into it.
class JsonDocument {
 public:
  // Refuses what is not valid UTF-8, holds a lone surrogate, nests deeper than kMaxJsonDepth, or is
  // no object.
  Complaint parse(std::string_view body);
  const simdjson::dom::object& root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::object root_;
};

// A value and where it stands: "messages[2].role".
struct Field {
  std::string path;
  Json value;

  Field at(size_t index, Json element) const {
    return {path + "[" + std::to_string(index) + "]", element};
  }
  Field at(std::string_view key, Json element) const {
    return {path + "." + std::string(key), element};
  }
};

// "path: got VALUE, expected EXPECTED"
ApiError complaint(const Field& field, std::string_view expected);
// The value as an error message may show it: at most 64 bytes of a string, lists and objects by
// their size.
std::string shown(Json value);

struct NumberRange {
  double low;
  double high;
  bool low_is_excluded = false;
};

Complaint read(const Field& field, bool* out);
Complaint read(const Field& field, NumberRange range, std::optional<double>* out);
// Numbers with a fraction of zero (2.0) are integers too.
Complaint read(const Field& field, int64_t low, int64_t high, int64_t* out);
Complaint read(const Field& field, int64_t low, int64_t high, std::optional<int64_t>* out);
Complaint read(const Field& field, size_t max_bytes, std::string* out);
// A list of texts of 1 … max_bytes bytes.
Complaint read(const Field& field,
               size_t max_count,
               size_t max_bytes,
               std::vector<std::string>* out);
// A list of token ids of a vocabulary.
Complaint read(const Field& field, size_t max_count, int64_t vocab_size, std::vector<TokenId>* out);

// True for false, 0, "", [] and {}: a switched-off form of something that we cannot do.
bool is_switched_off(Json value);

}  // namespace flotilla::openai
