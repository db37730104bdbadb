#include "engine/text/generation_config.h"

#include <simdjson.h>

#include <algorithm>
#include <limits>

#include "common/fd.h"

namespace flotilla {
namespace {

using Json = simdjson::dom::element;

constexpr size_t kMaxConfigBytes = 64 << 20;
constexpr double kMaxFloat = std::numeric_limits<float>::max();

// One JSON file that need not be there.
class ConfigFile {
 public:
  Status open(const std::string& model_dir, std::string_view name) {
    path_ = model_dir + "/" + std::string(name);
    StatusOr<std::string> text = read_file(path_, kMaxConfigBytes);
    if (text.status().code() == StatusCode::kNotFound) return ok_status();
    if (!text.ok()) return text.status();
    Json root;
    if (parser_.parse(*text).get(root) != simdjson::SUCCESS ||
        root.get(object_) != simdjson::SUCCESS) {
      return invalid_argument(path_ + " is not a JSON object");
    }
    present_ = true;
    return ok_status();
  }

  // nullopt if the file or the field is absent or null.
  std::optional<Json> find(std::string_view field) const {
    Json value;
    if (!present_ || object_[field].get(value) != simdjson::SUCCESS || value.is_null()) {
      return std::nullopt;
    }
    return value;
  }

  Status bad(std::string_view field, std::string_view expected) const {
    return invalid_argument(path_ + ": " + std::string(field) + " is " +
                            simdjson::minify(object_[field].value_unsafe()).substr(0, 80) +
                            ", expected " + std::string(expected));
  }

 private:
  std::string path_;
  simdjson::dom::parser parser_;
  simdjson::dom::object object_;
  bool present_ = false;
};

Status read_number(const ConfigFile& file,
                   std::string_view field,
                   double low,
                   double high,
                   std::string_view expected,
                   std::optional<double>* out) {
  const std::optional<Json> value = file.find(field);
  if (!value) return ok_status();
  double number = 0;
  if (value->get(number) != simdjson::SUCCESS || !(number >= low && number <= high)) {
    return file.bad(field, expected);
  }
  *out = number;
  return ok_status();
}

Status read_integer(const ConfigFile& file,
                    std::string_view field,
                    int64_t low,
                    std::string_view expected,
                    std::optional<int64_t>* out) {
  const std::optional<Json> value = file.find(field);
  if (!value) return ok_status();
  int64_t number = 0;
  if (value->get(number) != simdjson::SUCCESS || number < low ||
      number > std::numeric_limits<int32_t>::max()) {
    return file.bad(field, expected);
  }
  *out = number;
  return ok_status();
}

bool append_id(Json value, std::vector<TokenId>* out) {
  int64_t id = 0;
  if (value.get(id) != simdjson::SUCCESS || id < 0 || id > std::numeric_limits<TokenId>::max()) {
    return false;
  }
  out->push_back(static_cast<TokenId>(id));
  return true;
}

Status append_eos_ids(const ConfigFile& file, std::vector<TokenId>* out) {
  constexpr std::string_view kField = "eos_token_id";
  const std::optional<Json> value = file.find(kField);
  if (!value) return ok_status();
  simdjson::dom::array list;
  if (value->get(list) != simdjson::SUCCESS) {
    return append_id(*value, out) ? ok_status() : file.bad(kField, "a token id or a list of them");
  }
  for (const Json element : list) {
    if (!append_id(element, out)) return file.bad(kField, "a token id or a list of them");
  }
  return ok_status();
}

}  // namespace

StatusOr<GenerationDefaults> read_generation_defaults(const std::string& model_dir) {
  ConfigFile file;
  FLOTILLA_RETURN_IF_ERROR(file.open(model_dir, "generation_config.json"));
  GenerationDefaults out;
  FLOTILLA_RETURN_IF_ERROR(
      read_number(file, "temperature", 0, kMaxFloat, "a number of at least 0", &out.temperature));
  FLOTILLA_RETURN_IF_ERROR(read_number(file, "top_p", 0, 1, "a number from 0 to 1", &out.top_p));
  FLOTILLA_RETURN_IF_ERROR(read_number(file, "min_p", 0, 1, "a number from 0 to 1", &out.min_p));
  FLOTILLA_RETURN_IF_ERROR(read_number(file,
                                       "repetition_penalty",
                                       std::numeric_limits<float>::min(),
                                       kMaxFloat,
                                       "a number above 0",
                                       &out.repetition_penalty));
  FLOTILLA_RETURN_IF_ERROR(
      read_integer(file, "top_k", -1, "an integer of at least -1", &out.top_k));
  FLOTILLA_RETURN_IF_ERROR(
      read_integer(file, "max_new_tokens", 1, "an integer of at least 1", &out.max_new_tokens));
  if (const std::optional<Json> value = file.find("do_sample")) {
    bool sample = true;
    if (value->get(sample) != simdjson::SUCCESS) return file.bad("do_sample", "true or false");
    if (!sample) out.temperature = 0;
  }
  return out;
}

StatusOr<std::vector<TokenId>> read_eos_token_ids(
    const std::string& model_dir,
    const std::function<std::optional<TokenId>(std::string_view)>& id_of) {
  std::vector<TokenId> ids;
  for (const std::string_view name : {"config.json", "generation_config.json"}) {
    ConfigFile file;
    FLOTILLA_RETURN_IF_ERROR(file.open(model_dir, name));
    FLOTILLA_RETURN_IF_ERROR(append_eos_ids(file, &ids));
  }
  ConfigFile tokenizer;
  FLOTILLA_RETURN_IF_ERROR(tokenizer.open(model_dir, "tokenizer_config.json"));
  if (const std::optional<Json> value = tokenizer.find("eos_token")) {
    std::string_view text;
    const bool is_text = value->get(text) == simdjson::SUCCESS ||
                         (value->is_object() && (*value)["content"].get(text) == simdjson::SUCCESS);
    if (!is_text) return tokenizer.bad("eos_token", "a string or an object with \"content\"");
    const std::optional<TokenId> id = id_of(text);
    if (!id) return tokenizer.bad("eos_token", "a token of the vocabulary");
    ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace flotilla
