#include "launcher/model_sizes.h"

#include <fcntl.h>
#include <simdjson.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>

#include "common/fd.h"

namespace flotilla {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHead = 100u << 20;
constexpr size_t kMaxConfig = 16u << 20;

// "model.layers.3.mlp.experts.17.up_proj.weight", not "…mlp.shared_experts.…"
bool is_expert(std::string_view name) { return name.find(".experts.") != std::string_view::npos; }

StatusOr<std::string> read_head(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return invalid_argument("cannot open " + path + ": " + std::strerror(errno));
  uint64_t size = 0;  // little-endian, as every CPU that this runs on
  FLOTILLA_RETURN_IF_ERROR(read_exactly(fd.get(), std::as_writable_bytes(std::span(&size, 1))));
  if (size > kMaxHead)
    return invalid_argument(path + " has a head of " + std::to_string(size) + " bytes");
  std::string head(size, '\0');
  FLOTILLA_RETURN_IF_ERROR(read_exactly(fd.get(), std::as_writable_bytes(std::span(head))));
  return head;
}

Status add_file(const std::string& path, ModelSizes* sizes) {
  StatusOr<std::string> head = read_head(path);
  if (!head.ok()) return head.status();
  simdjson::dom::parser parser;
  simdjson::dom::object tensors;
  if (parser.parse(*head).get(tensors)) return invalid_argument(path + " is no safetensors file");
  for (const auto [name, tensor] : tensors) {
    if (name == "__metadata__") continue;
    int64_t begin = 0;
    int64_t end = 0;
    simdjson::dom::array offsets;
    if (tensor["data_offsets"].get(offsets) || offsets.at(0).get(begin) || offsets.at(1).get(end) ||
        end < begin) {
      return invalid_argument(path + ": tensor " + std::string(name) + " has no data_offsets");
    }
    (is_expert(name) ? sizes->expert_bytes : sizes->other_bytes) += end - begin;
  }
  return ok_status();
}

int64_t integer_or(const simdjson::dom::object& object, std::string_view name, int64_t otherwise) {
  int64_t value = 0;
  return object[name].get(value) ? otherwise : value;
}

int64_t kv_elements(const std::string& config_path) {
  const StatusOr<std::string> text = read_file(config_path, kMaxConfig);
  if (!text.ok()) return 0;
  simdjson::dom::parser parser;
  simdjson::dom::object config;
  if (parser.parse(*text).get(config)) return 0;
  const int64_t layers = integer_or(config, "num_hidden_layers", 0);
  const int64_t heads = integer_or(config, "num_attention_heads", 0);
  const int64_t kv_heads = integer_or(config, "num_key_value_heads", heads);
  const int64_t hidden = integer_or(config, "hidden_size", 0);
  const int64_t head_dim = integer_or(config, "head_dim", heads > 0 ? hidden / heads : 0);
  for (const int64_t factor : {layers, kv_heads, head_dim}) {
    if (factor < 0 || factor > 1 << 20) return 0;
  }
  return 2 * layers * kv_heads * head_dim;
}

}  // namespace

StatusOr<ModelSizes> read_model_sizes(const std::string& folder) {
  ModelSizes sizes;
  bool any = false;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; entry != end && !error;
       entry.increment(error)) {
    if (entry->path().extension() != ".safetensors") continue;
    any = true;
    FLOTILLA_RETURN_IF_ERROR(add_file(entry->path(), &sizes));
  }
  if (error) return not_found("cannot read the folder " + folder + ": " + error.message());
  if (!any) return not_found(folder + " has no *.safetensors");
  sizes.kv_elements_per_token = kv_elements(folder + "/config.json");
  return sizes;
}

}  // namespace flotilla
