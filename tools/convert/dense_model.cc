#include "tools/convert/dense_model.h"

#include <simdjson.h>

#include <cstring>

#include "common/fd.h"
#include "engine/model/architectures.h"

namespace flotilla::convert {
namespace {

constexpr size_t kMaxConfigBytes = 16u << 20;

// Claims tensors by name; the first error sticks.
class Claims {
 public:
  explicit Claims(TensorSource& source) : source_(source) {}

  Rows take(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status_.ok()) return {};
    StatusOr<HostTensor> tensor = source_.claim(name, shape);
    if (!tensor.ok()) {
      status_ = tensor.status();
      return {};
    }
    if (tensor->view.dtype == DType::kF8E4M3) {
      status_ = unimplemented("tensor '" + name + "' is FP8; twins are made of BF16, F16 and F32");
    }
    return {tensor->view};
  }
  const Status& status() const { return status_; }

 private:
  TensorSource& source_;
  Status status_;
};

Status check_kind(const ModelConfig& c) {
  const Architecture* architecture = find_architecture(c.architecture);
  check(architecture != nullptr, "load_model_config lets no unknown architecture through");
  std::string lacks;
  if (architecture->family != FamilyKind::kLlama) lacks = "the architecture " + c.architecture;
  if (c.attention_bias || c.mlp_bias) lacks = "biases";
  if (c.rope_scaling) lacks = "rope scaling";
  if (c.fp8_block != 0) lacks = "FP8 weights";
  if (lacks.empty()) return ok_status();
  return unimplemented("twins are made of dense Llama models; this one has " + lacks);
}

StatusOr<std::string> read_special_ids(const std::string& dir) {
  const StatusOr<std::string> text = read_file(dir + "/config.json", kMaxConfigBytes);
  if (!text.ok()) return text.status();
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(simdjson::padded_string(*text));
  std::string json;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    simdjson::dom::element value;
    if (root[key].get(value)) continue;
    json += (json.empty() ? "" : ",") + ("\"" + std::string(key)) + "\":" + simdjson::minify(value);
  }
  return json;
}

}  // namespace

void Rows::read(int64_t row, float* out) const {
  const int64_t n = cols();
  const char* from =
      static_cast<const char*>(view.data) + row * n * static_cast<int64_t>(dtype_bytes(view.dtype));
  if (view.dtype == DType::kF32) {
    std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, from + 2 * i, sizeof half);
    out[i] = view.dtype == DType::kBf16 ? bf16_to_f32(half) : f16_to_f32(half);
  }
}

StatusOr<DenseModel> DenseModel::open(const std::string& dir) {
  StatusOr<ModelConfig> config = load_model_config(dir);
  if (!config.ok()) return config.status();
  const Status kind = check_kind(*config);
  if (!kind.ok()) return Status(kind.code(), dir + ": " + kind.message());
  StatusOr<std::string> ids = read_special_ids(dir);
  if (!ids.ok()) return ids.status();
  StatusOr<std::unique_ptr<TensorSource>> source = open_checkpoint(dir);
  if (!source.ok()) return source.status();

  DenseModel m;
  m.config = std::move(*config);
  m.source = std::move(*source);
  m.special_ids_json = std::move(*ids);
  const ModelConfig& c = m.config;
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  Claims claims(*m.source);
  m.embedding = claims.take("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  m.norm = claims.take("model.norm.weight", {c.hidden_size});
  if (c.tie_word_embeddings) {
    m.source->ignore_prefix("lm_head.weight");
  } else {
    m.head = claims.take("lm_head.weight", {c.vocab_size, c.hidden_size});
  }
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i);
    const std::string attention = layer + ".self_attn.", mlp = layer + ".mlp.";
    m.source->ignore_prefix(attention + "rotary_emb.");
    m.layers.push_back({
        .input_norm = claims.take(layer + ".input_layernorm.weight", {c.hidden_size}),
        .q = claims.take(attention + "q_proj.weight", {q, c.hidden_size}),
        .k = claims.take(attention + "k_proj.weight", {kv, c.hidden_size}),
        .v = claims.take(attention + "v_proj.weight", {kv, c.hidden_size}),
        .o = claims.take(attention + "o_proj.weight", {c.hidden_size, q}),
        .post_norm = claims.take(layer + ".post_attention_layernorm.weight", {c.hidden_size}),
        .gate = claims.take(mlp + "gate_proj.weight", {c.intermediate_size, c.hidden_size}),
        .up = claims.take(mlp + "up_proj.weight", {c.intermediate_size, c.hidden_size}),
        .down = claims.take(mlp + "down_proj.weight", {c.hidden_size, c.intermediate_size}),
    });
  }
  if (!claims.status().ok()) return claims.status();
  FLOTILLA_RETURN_IF_ERROR(m.source->check_all_claimed());
  return m;
}

}  // namespace flotilla::convert
