#include "tools/convert/gguf_llama.h"

#include <array>
#include <cmath>
#include <optional>
#include <set>

#include "common/json.h"
#include "tools/convert/dequantize.h"
#include "tools/convert/gguf_fields.h"

namespace flotilla::convert {
namespace {

constexpr int64_t kMaxWidth = 1 << 24;

struct LlamaShape {
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  int64_t context = 0;
  float eps = 0.0f;
  double theta = 10000.0;
  std::optional<double> llama3_factor;  // of rope_scaling "llama3"
  bool tied = true;
};

StatusOr<LlamaShape> read_shape(const GgufContents& gguf) {
  GgufFields in(gguf);
  const std::string_view architecture = in.text_if("general.architecture").value_or("");
  if (architecture != "llama") {
    return unimplemented("architecture " + shown_name(architecture) +
                         "; GGUF files of the architecture 'llama' are converted");
  }
  LlamaShape s;
  s.layers = in.integer("llama.block_count", 1, 4096);
  s.hidden = in.integer("llama.embedding_length", 1, kMaxWidth);
  s.intermediate = in.integer("llama.feed_forward_length", 1, kMaxWidth);
  s.heads = in.integer("llama.attention.head_count", 1, 1 << 16);
  s.kv_heads = in.integer_if("llama.attention.head_count_kv", 1, 1 << 16).value_or(s.heads);
  s.context = in.integer("llama.context_length", 1, 1 << 26);
  s.eps = static_cast<float>(in.number("llama.attention.layer_norm_rms_epsilon", 0.0, 1.0));
  if (in.has("llama.rope.freq_base")) s.theta = in.number("llama.rope.freq_base", 1.0, 1e12);
  s.head_dim = in.integer_if("llama.attention.key_length", 2, 4096).value_or(s.hidden / s.heads);
  if (in.status().ok() && s.heads % s.kv_heads != 0) {
    in.fail("llama.attention.head_count " + std::to_string(s.heads) +
            " is no multiple of head_count_kv " + std::to_string(s.kv_heads));
  }
  if (in.status().ok() && !in.has("llama.attention.key_length") && s.hidden % s.heads != 0) {
    in.fail("llama.embedding_length " + std::to_string(s.hidden) +
            " is no multiple of attention.head_count, and attention.key_length is not given");
  }
  if (s.head_dim % 2 != 0) in.fail("heads of " + std::to_string(s.head_dim) + " values are odd");
  const int64_t value_length =
      in.integer_if("llama.attention.value_length", 1, 4096).value_or(s.head_dim);
  const int64_t rotated = in.integer_if("llama.rope.dimension_count", 1, 4096).value_or(s.head_dim);
  if (value_length != s.head_dim || rotated != s.head_dim) {
    in.unsupported("heads of " + std::to_string(s.head_dim) +
                   " values with attention.value_length " + std::to_string(value_length) +
                   " and rope.dimension_count " + std::to_string(rotated) +
                   "; all three must be equal");
  }
  if (in.integer_if("llama.expert_count", 0, INT64_MAX).value_or(0) > 0) {
    in.unsupported("llama.expert_count: experts in a GGUF file of the architecture 'llama'");
  }
  const std::string_view scaling = in.text_if("llama.rope.scaling.type").value_or("none");
  if (scaling != "none") {
    in.unsupported("llama.rope.scaling.type " + shown_name(scaling) + "; only 'none' is converted");
  }
  if (!in.status().ok()) return in.status();
  const auto embedding = gguf.tensors.find("token_embd.weight");
  if (embedding == gguf.tensors.end()) {
    return invalid_argument("tensor 'token_embd.weight' is missing");
  }
  s.vocab = embedding->second.rows();
  s.tied = !gguf.tensors.contains("output.weight");
  return s;
}

// What a file of Llama 3.1 or later holds in rope_freqs.weight for a factor: by what each frequency
// is divided. Source: transformers modeling_rope_utils.py, "llama3", with that family's 1, 4, 8192.
double llama3_divisor(double theta, int64_t head_dim, int64_t j, double factor) {
  const double frequency =
      std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
  const double wavelength = 2.0 * M_PI / frequency;
  if (wavelength > 8192.0 / 1.0) return factor;
  if (wavelength < 8192.0 / 4.0) return 1.0;
  const double smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
  return 1.0 / ((1.0 - smooth) / factor + smooth);
}

Status read_rope_factors(const GgufContents& gguf, LlamaShape* s) {
  const auto it = gguf.tensors.find("rope_freqs.weight");
  if (it == gguf.tensors.end()) return ok_status();
  const GgufTensor& tensor = it->second;
  if (tensor.type != GgmlType::kF32 || tensor.shape != std::vector{s->head_dim / 2}) {
    return invalid_argument("tensor 'rope_freqs.weight' is no F32 vector of half a head");
  }
  std::vector<float> divisors(static_cast<size_t>(s->head_dim / 2));
  dequantize(tensor.type, tensor.data, tensor.cols(), divisors.data());
  for (const double factor : {8.0, 32.0}) {
    bool equal = true;
    for (size_t j = 0; j < divisors.size(); ++j) {
      const double wanted = llama3_divisor(s->theta, s->head_dim, static_cast<int64_t>(j), factor);
      equal = equal && std::abs(divisors[j] - wanted) <= 1e-4 * wanted;
    }
    if (equal) {
      s->llama3_factor = factor;
      return ok_status();
    }
  }
  return unimplemented(
      "tensor 'rope_freqs.weight' is not that of Llama 3.1 (factor 8) or 3.2 (factor 32)");
}

// Takes the file's tensors one by one; what is left at the end nobody knows.
class TensorTaker {
 public:
  TensorTaker(const GgufContents& gguf, DType dtype, std::vector<OutputTensor>* out)
      : gguf_(gguf), dtype_(dtype), out_(out) {}

  // `head_dim` > 0: rows are q's or k's, and come out half-split. The file's row 2j of a head is
  // the model's row j, its row 2j + 1 is row j + head_dim / 2.
  void take(const std::string& from,
            const std::string& to,
            const std::vector<int64_t>& shape,
            int64_t head_dim = 0) {
    const auto it = gguf_.tensors.find(from);
    if (it == gguf_.tensors.end()) {
      return fail("tensor '" + from + "' is missing");
    }
    const GgufTensor& tensor = it->second;
    if (tensor.shape != shape) {
      return fail("tensor '" + from + "' has shape " + shape_text(tensor.shape) +
                  ", the metadata asks for " + shape_text(shape));
    }
    taken_.insert(from);
    out_->push_back({.name = to,
                     .dtype = dtype_,
                     .shape = shape,
                     .fill = [&tensor, head_dim](int64_t first, int64_t count, float* values) {
                       for (int64_t i = 0; i < count; ++i) {
                         dequantize(tensor.type,
                                    tensor.row(source_row(first + i, head_dim)),
                                    tensor.cols(),
                                    values + i * tensor.cols());
                       }
                     }});
  }
  void ignore(const std::string& name) { taken_.insert(name); }

  Status finish() {
    for (const auto& [name, tensor] : gguf_.tensors) {
      if (!taken_.contains(name)) {
        fail("tensor " + shown_name(name) +
             " has no place in a Llama model without biases and experts");
      }
    }
    return status_;
  }

 private:
  static int64_t source_row(int64_t row, int64_t head_dim) {
    if (head_dim == 0) return row;
    const int64_t head = row / head_dim, j = row % head_dim, half = head_dim / 2;
    return head * head_dim + (j < half ? 2 * j : 2 * (j - half) + 1);
  }
  static std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
  }
  void fail(std::string message) {
    if (status_.ok()) status_ = invalid_argument(std::move(message));
  }

  const GgufContents& gguf_;
  const DType dtype_;
  std::vector<OutputTensor>* out_;
  std::set<std::string, std::less<>> taken_;
  Status status_;
};

Status take_tensors(const GgufContents& gguf,
                    const LlamaShape& s,
                    DType dtype,
                    std::vector<OutputTensor>* out) {
  TensorTaker t(gguf, dtype, out);
  const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  t.take("token_embd.weight", "model.embed_tokens.weight", {s.vocab, s.hidden});
  t.take("output_norm.weight", "model.norm.weight", {s.hidden});
  if (!s.tied) t.take("output.weight", "lm_head.weight", {s.vocab, s.hidden});
  if (s.llama3_factor) t.ignore("rope_freqs.weight");
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string from = "blk." + std::to_string(i) + ".";
    const std::string to = "model.layers." + std::to_string(i) + ".";
    t.take(from + "attn_norm.weight", to + "input_layernorm.weight", {s.hidden});
    t.take(from + "attn_q.weight", to + "self_attn.q_proj.weight", {q, s.hidden}, s.head_dim);
    t.take(from + "attn_k.weight", to + "self_attn.k_proj.weight", {kv, s.hidden}, s.head_dim);
    t.take(from + "attn_v.weight", to + "self_attn.v_proj.weight", {kv, s.hidden});
    t.take(from + "attn_output.weight", to + "self_attn.o_proj.weight", {s.hidden, q});
    t.take(from + "ffn_norm.weight", to + "post_attention_layernorm.weight", {s.hidden});
    t.take(from + "ffn_gate.weight", to + "mlp.gate_proj.weight", {s.intermediate, s.hidden});
    t.take(from + "ffn_up.weight", to + "mlp.up_proj.weight", {s.intermediate, s.hidden});
    t.take(from + "ffn_down.weight", to + "mlp.down_proj.weight", {s.hidden, s.intermediate});
  }
  return t.finish();
}

struct SpecialIds {
  std::optional<int64_t> bos, pad;
  std::vector<int64_t> eos;
};

StatusOr<SpecialIds> read_special_ids(const GgufContents& gguf, int64_t vocab) {
  GgufFields in(gguf);
  const auto id = [&](const char* role) {
    return in.integer_if(std::string("tokenizer.ggml.") + role + "_token_id", 0, vocab - 1);
  };
  SpecialIds ids;
  ids.bos = id("bos");
  ids.pad = id("padding");
  for (const char* role : {"eos", "eot", "eom"}) {
    const std::optional<int64_t> found = id(role);
    if (found && std::find(ids.eos.begin(), ids.eos.end(), *found) == ids.eos.end()) {
      ids.eos.push_back(*found);
    }
  }
  if (!in.status().ok()) return in.status();
  return ids;
}

void write_special_ids(JsonWriter& w, const SpecialIds& ids) {
  if (ids.bos) w.field("bos_token_id", *ids.bos);
  if (ids.eos.size() == 1) {
    w.field("eos_token_id", ids.eos[0]);
  } else if (!ids.eos.empty()) {
    w.key("eos_token_id");
    w.begin_array();
    for (const int64_t eos : ids.eos) w.value(eos);
    w.end_array();
  }
  if (ids.pad) w.field("pad_token_id", *ids.pad);
}

std::string config_json(const LlamaShape& s, const SpecialIds& ids, DType dtype) {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.key("architectures");
  w.begin_array();
  w.value("LlamaForCausalLM");
  w.end_array();
  w.field("model_type", "llama");
  w.field("attention_bias", false);
  w.field("mlp_bias", false);
  write_special_ids(w, ids);
  w.field("head_dim", s.head_dim);
  w.field("hidden_act", "silu");
  w.field("hidden_size", s.hidden);
  w.field("intermediate_size", s.intermediate);
  w.field("max_position_embeddings", s.context);
  w.field("num_attention_heads", s.heads);
  w.field("num_hidden_layers", s.layers);
  w.field("num_key_value_heads", s.kv_heads);
  // GGUF has floats: the shortest decimal of one is what the model's author wrote.
  w.field("rms_norm_eps", s.eps);
  if (s.llama3_factor) {
    w.key("rope_scaling");
    w.begin_object();
    w.field("rope_type", "llama3");
    w.field("factor", *s.llama3_factor);
    w.field("low_freq_factor", 1.0);
    w.field("high_freq_factor", 4.0);
    w.field("original_max_position_embeddings", 8192);
    w.end_object();
  }
  w.field("rope_theta", static_cast<float>(s.theta));
  w.field("tie_word_embeddings", s.tied);
  w.field("torch_dtype", dtype == DType::kBf16 ? "bfloat16" : "float32");
  w.field("use_cache", true);
  w.field("vocab_size", s.vocab);
  w.end_object();
  return json + "\n";
}

std::string generation_config_json(const SpecialIds& ids) {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.field("_from_model_config", true);
  write_special_ids(w, ids);
  w.end_object();
  return json + "\n";
}

}  // namespace

StatusOr<LlamaFiles> llama_from_gguf(const GgufContents& gguf, DType dtype) {
  StatusOr<LlamaShape> shape = read_shape(gguf);
  if (!shape.ok()) return shape.status();
  FLOTILLA_RETURN_IF_ERROR(read_rope_factors(gguf, &*shape));
  LlamaFiles files;
  FLOTILLA_RETURN_IF_ERROR(take_tensors(gguf, *shape, dtype, &files.tensors));
  const StatusOr<SpecialIds> ids = read_special_ids(gguf, shape->vocab);
  if (!ids.ok()) return ids.status();
  files.config_json = config_json(*shape, *ids, dtype);
  files.generation_config_json = generation_config_json(*ids);
  return files;
}

}  // namespace flotilla::convert
