#include "engine/model/config.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/fd.h"
#include "engine/model/architectures.h"

namespace flotilla {
namespace {

namespace json = simdjson::dom;

constexpr size_t kMaxConfigBytes = 16u << 20;

// Reads keys of one JSON object; the first error sticks, so that a parser reads as a list.
class Reader {
 public:
  explicit Reader(json::object object) : object_(object) {}

  const Status& status() const { return status_; }

  bool present(std::string_view key) const {
    json::element value;
    return !object_[key].get(value) && !value.is_null();
  }

  int64_t integer(std::string_view key, int64_t low, int64_t high) {
    return integer_or(key, std::nullopt, low, high);
  }
  int64_t integer_or(std::string_view key,
                     std::optional<int64_t> fallback,
                     int64_t low,
                     int64_t high) {
    json::element value;
    if (!present(key)) {
      if (!fallback) fail(std::string(key) + " is missing");
      return fallback.value_or(low);
    }
    int64_t number = low;
    if (object_[key].get(value) || value.get(number)) {
      fail(std::string(key) + " is no whole number");
    } else if (number < low || number > high) {
      fail(std::string(key) + " is " + std::to_string(number) + ", allowed are " +
           std::to_string(low) + " to " + std::to_string(high));
    }
    return number;
  }

  double number_or(std::string_view key, double fallback, double low, double high) {
    if (!present(key)) return fallback;
    double number = fallback;
    if (object_[key].get(number)) {
      fail(std::string(key) + " is no number");
    } else if (!(number >= low && number <= high)) {
      fail(std::string(key) + " is " + std::to_string(number) + ", allowed are " +
           std::to_string(low) + " to " + std::to_string(high));
    }
    return number;
  }

  bool boolean_or(std::string_view key, bool fallback) {
    if (!present(key)) return fallback;
    bool value = fallback;
    if (object_[key].get(value)) fail(std::string(key) + " is neither true nor false");
    return value;
  }

  std::string text_or(std::string_view key, std::string_view fallback) {
    if (!present(key)) return std::string(fallback);
    std::string_view value;
    if (object_[key].get(value)) fail(std::string(key) + " is no string");
    return std::string(value);
  }

  std::optional<Reader> object(std::string_view key) {
    json::object value;
    if (!present(key)) return std::nullopt;
    if (object_[key].get(value)) {
      fail(std::string(key) + " is no object");
      return std::nullopt;
    }
    return Reader(value);
  }

  // One whole number or a list of them.
  std::vector<int64_t> integers(std::string_view key) {
    std::vector<int64_t> numbers;
    if (!present(key)) return numbers;
    json::array array;
    int64_t number;
    if (!object_[key].get(number)) return {number};
    if (object_[key].get(array)) {
      fail(std::string(key) + " is neither a whole number nor a list of them");
      return numbers;
    }
    for (const json::element element : array) {
      if (element.get(number)) {
        fail(std::string(key) + " holds something that is no whole number");
        break;
      }
      numbers.push_back(number);
    }
    return numbers;
  }

  void fail(std::string message) {
    if (status_.ok()) status_ = invalid_argument(std::move(message));
  }
  void unsupported(std::string message) {
    if (status_.ok()) status_ = unimplemented(std::move(message));
  }

 private:
  json::object object_;
  Status status_;
};

void read_rope(Reader& in, ModelConfig* c, double default_theta) {
  std::optional<Reader> parameters = in.object("rope_parameters");  // transformers 5
  std::optional<Reader> scaling = in.object("rope_scaling");        // transformers 4
  c->rope_theta = in.number_or("rope_theta", default_theta, 1.0, 1e12);
  if (parameters) {
    c->rope_theta = parameters->number_or("rope_theta", c->rope_theta, 1.0, 1e12);
    if (!scaling) scaling = parameters;
  }
  if (!scaling) return;
  const std::string type = scaling->text_or("rope_type", scaling->text_or("type", "default"));
  if (type == "llama3") {
    Llama3RopeScaling s;
    s.factor = scaling->number_or("factor", s.factor, 1.0, 1e6);
    s.low_freq_factor = scaling->number_or("low_freq_factor", s.low_freq_factor, 1e-6, 1e6);
    s.high_freq_factor = scaling->number_or("high_freq_factor", s.high_freq_factor, 1e-6, 1e6);
    s.original_max_position =
        scaling->number_or("original_max_position_embeddings", s.original_max_position, 1.0, 1e9);
    if (s.high_freq_factor <= s.low_freq_factor) {
      in.fail("rope_scaling: high_freq_factor must be above low_freq_factor");
    }
    c->rope_scaling = s;
  } else if (type != "default") {
    in.unsupported("rope_scaling of type '" + type + "' (this version has default and llama3)");
  }
  if (!scaling->status().ok()) in.fail("rope_scaling: " + scaling->status().message());
}

void read_fp8(Reader& in, ModelConfig* c) {
  std::optional<Reader> q = in.object("quantization_config");
  if (!q) return;
  const std::string method = q->text_or("quant_method", "");
  const std::string paddle = q->text_or("quantization", "");
  if (method == "fp8") {
    const std::vector<int64_t> block = q->integers("weight_block_size");
    if (block.size() != 2 || block[0] != block[1] || block[0] < 1 || block[0] > 65536) {
      in.unsupported("quantization_config: FP8 with weight_block_size other than [n, n]");
      return;
    }
    c->fp8_block = block[0];
    return;
  }
  const std::string dense = q->text_or("dense_quant_type", paddle);
  const std::string moe = q->text_or("moe_quant_type", paddle);
  const bool block_wise = dense == "block_wise_fp8" && moe == "block_wise_fp8";
  if (!block_wise) {
    in.unsupported("quantization_config (method '" + method + paddle + "', dense '" + dense +
                   "', moe '" + moe + "'): this version reads bf16 weights and block-wise FP8");
    return;
  }
  c->fp8_block = 128;
  if (q->present("kv_cache_quant_type")) {
    c->notes.push_back("kv_cache_quant_type is not used: the KV cache holds the activation type");
  }
}

void read_ernie_moe(Reader& in, ModelConfig* c) {
  for (const char* key : {"moe_num_experts", "moe_intermediate_size"}) {
    if (in.integers(key).size() > 1) {
      in.unsupported(std::string(key) +
                     " is a list (a vision-language model); this version serves text models");
      return;
    }
  }
  MoeConfig& m = c->moe;
  m.num_experts =
      in.integer_or("moe_num_experts", in.integer_or("num_experts", 0, 0, 1 << 16), 0, 1 << 16);
  if (m.num_experts == 0) return;
  m.experts_per_token = in.integer_or(
      "moe_k", in.integer_or("num_experts_per_tok", 0, 0, m.num_experts), 1, m.num_experts);
  m.intermediate_size = in.integer("moe_intermediate_size", 1, 1 << 24);
  m.shared_intermediate_size =
      in.integer_or("moe_num_shared_experts", 0, 0, 1 << 10) * m.intermediate_size;
  m.renormalize = true;
  m.norm_min = static_cast<float>(in.number_or("moe_norm_min", 1e-12, 0.0, 1.0));
  m.correction_bias = in.boolean_or("moe_use_aux_free", true);
  const std::string act = in.text_or("moe_gate_act", "softmax");
  if (act != "softmax")
    in.unsupported("moe_gate_act '" + act + "' (ERNIE-4.5 text models use softmax)");
  const int64_t start = in.integer_or("moe_layer_start_index", 0, 0, c->num_layers);
  int64_t end = in.integer_or("moe_layer_end_index", -1, -1, 1 << 20);
  if (end == -1) end = c->num_layers - 1;
  const int64_t interval = in.integer_or("moe_layer_interval", 1, 1, 1 << 20);
  for (int64_t i = 0; i < c->num_layers; ++i) {
    c->layer_is_moe[static_cast<size_t>(i)] = (i + 1) % interval == 0 && i >= start && i <= end;
  }
}

void read_qwen3_moe(Reader& in, ModelConfig* c) {
  MoeConfig& m = c->moe;
  m.num_experts = in.present("num_experts") ? in.integer("num_experts", 1, 1 << 16)
                                            : in.integer("num_local_experts", 1, 1 << 16);
  m.experts_per_token = in.integer("num_experts_per_tok", 1, m.num_experts);
  m.intermediate_size = in.integer("moe_intermediate_size", 1, 1 << 24);
  m.renormalize = in.boolean_or("norm_topk_prob", false);
  const int64_t step = in.integer_or("decoder_sparse_step", 1, 1, 1 << 20);
  const std::vector<int64_t> dense = in.integers("mlp_only_layers");
  for (int64_t i = 0; i < c->num_layers; ++i) {
    const bool listed = std::find(dense.begin(), dense.end(), i) != dense.end();
    c->layer_is_moe[static_cast<size_t>(i)] = !listed && (i + 1) % step == 0;
  }
}

}  // namespace

int64_t ModelConfig::num_moe_layers() const {
  return std::count(layer_is_moe.begin(), layer_is_moe.end(), true);
}

StatusOr<ModelConfig> parse_model_config(std::string_view text) {
  json::parser parser;
  if (parser.allocate(text.size() + 1, 32)) return resource_exhausted("no memory for the file");
  json::object root;
  if (const auto error = parser.parse(simdjson::padded_string(text)).get(root)) {
    return invalid_argument(std::string("no JSON object: ") + simdjson::error_message(error));
  }
  Reader in(root);
  ModelConfig c;
  json::array architectures;
  std::string_view architecture;
  if (root["architectures"].get(architectures) || architectures.at(0).get(architecture)) {
    return invalid_argument(
        "no 'architectures' list with a name: this file describes no causal language model");
  }
  c.architecture = architecture;
  const Architecture* family = find_architecture(c.architecture);
  if (family == nullptr) {
    return unimplemented("architecture '" + c.architecture + "'; this version serves " +
                         supported_architectures());
  }

  constexpr int64_t kMaxWidth = 1 << 24;
  c.num_layers = in.integer("num_hidden_layers", 1, 4096);
  if (in.present("remove_tail_layer")) {
    bool flag = false;
    const bool is_flag = !root["remove_tail_layer"].get(flag);
    c.num_layers -= is_flag ? (flag ? 1 : 0) : in.integer("remove_tail_layer", 0, c.num_layers - 1);
  }
  c.hidden_size = in.integer("hidden_size", 1, kMaxWidth);
  c.num_heads = in.integer("num_attention_heads", 1, 1 << 16);
  c.num_kv_heads = in.integer_or("num_key_value_heads", c.num_heads, 1, c.num_heads);
  if (in.status().ok() && c.num_heads % c.num_kv_heads != 0) {
    in.fail("num_attention_heads " + std::to_string(c.num_heads) +
            " is no multiple of num_key_value_heads " + std::to_string(c.num_kv_heads));
  }
  if (in.present("head_dim")) {
    c.head_dim = in.integer("head_dim", 2, 4096);
  } else if (in.status().ok()) {
    if (c.hidden_size % c.num_heads != 0) {
      in.fail("hidden_size " + std::to_string(c.hidden_size) +
              " is no multiple of num_attention_heads, and head_dim is not given");
    }
    c.head_dim = c.hidden_size / c.num_heads;
  }
  if (c.head_dim % 2 != 0) in.fail("head_dim " + std::to_string(c.head_dim) + " is odd");
  if (c.head_dim > 256) in.unsupported("head_dim " + std::to_string(c.head_dim) + " (at most 256)");
  c.intermediate_size = in.integer_or("intermediate_size", 0, 0, kMaxWidth);
  c.vocab_size = in.integer("vocab_size", 1, 1 << 26);
  c.max_position = in.integer_or("max_position_embeddings", 2048, 1, 1 << 26);
  c.rms_norm_eps = static_cast<float>(
      in.number_or("rms_norm_eps", 1e-6, 0.0, std::numeric_limits<float>::max()));
  c.tie_word_embeddings = in.boolean_or("tie_word_embeddings", false);
  c.layer_is_moe.assign(static_cast<size_t>(c.num_layers), false);
  const std::string act = in.text_or("hidden_act", "silu");
  if (act != "silu") in.unsupported("hidden_act '" + act + "' (this version has silu)");
  if (in.boolean_or("use_sliding_window", false)) in.unsupported("use_sliding_window true");

  switch (family->family) {
    case FamilyKind::kErnie45:
      read_rope(in, &c, 500000.0);
      c.rope_style = RopeStyle::kInterleaved;
      c.position_divisor = in.number_or("compression_ratio", 1.0, 1e-6, 1e6);
      c.attention_bias = c.mlp_bias = in.boolean_or("use_bias", false);
      read_ernie_moe(in, &c);
      break;
    case FamilyKind::kQwen3:
      read_rope(in, &c, 1e6);
      c.qk_norm = true;
      c.attention_bias = in.boolean_or("attention_bias", false);
      if (family->moe) read_qwen3_moe(in, &c);
      break;
    case FamilyKind::kLlama:
      read_rope(in, &c, 10000.0);
      c.attention_bias = in.boolean_or("attention_bias", false);
      c.mlp_bias = in.boolean_or("mlp_bias", false);
      break;
  }
  if (c.num_moe_layers() == 0) c.moe = {};
  if (c.num_moe_layers() < c.num_layers && c.intermediate_size == 0) {
    in.fail("intermediate_size is missing, and some layers are dense");
  }
  read_fp8(in, &c);
  for (const int64_t id : in.integers("eos_token_id")) {
    if (id >= 0 && id < c.vocab_size) c.eos_token_ids.push_back(static_cast<TokenId>(id));
  }
  if (const auto bos = in.integers("bos_token_id");
      !bos.empty() && bos[0] >= 0 && bos[0] < c.vocab_size) {
    c.bos_token_id = static_cast<TokenId>(bos[0]);
  }
  if (in.integer_or("num_nextn_predict_layers", 0, 0, 64) > 0) {
    c.notes.push_back("num_nextn_predict_layers: the multi-token prediction layer is not used");
  }
  if (!in.status().ok()) return in.status();
  return c;
}

StatusOr<ModelConfig> load_model_config(const std::string& dir, const std::string& file) {
  const std::string path = dir + "/" + file;
  StatusOr<std::string> text = read_file(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  StatusOr<ModelConfig> config = parse_model_config(*text);
  if (!config.ok()) return Status(config.status().code(), path + ": " + config.status().message());
  return config;
}

}  // namespace flotilla
