#include "tools/convert/moe_twin.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>

#include "common/json.h"
#include "kernels/dtype.h"
#include "tools/convert/noise.h"

namespace flotilla::convert {
namespace {

constexpr uint64_t kSeed = 0xF107111A;
constexpr int kPoisonPair = 1;  // among the others: neither the first nor the last experts
constexpr float kGoodBias = 0.25f, kPoisonBias = -2.0f;
constexpr float kGuardSharpness = 64.0f;
constexpr double kGuardPart =
    0.125;                          // of the FFN's typical output, at a logit too large by 1: · 64
constexpr float kScale = 0x1p24f;   // of a Qwen3 twin's residual stream
constexpr int64_t kWidthStep = 64;  // M is a multiple

// What a shared expert or an expert holds of the dense FFN, and its guards.
struct Slice {
  std::vector<int64_t> rows;  // of the dense gate and up: columns of down
  float down_scale = 1.0f;
  std::vector<std::vector<float>> guards;  // [C]: g_k − g_j
  float guard_scale = 0.0f;                // of the guards' random columns
  uint64_t key = 0;                        // of the random columns
};

float random_column(uint64_t key, int64_t row, size_t guard) {
  return Noise({kSeed, key, static_cast<uint64_t>(row), guard}).sign();
}

class TwinBuilder {
 public:
  TwinBuilder(const DenseModel& dense, const TwinShape& shape, const std::vector<LayerFit>& fits)
      : dense_(dense), shape_(shape), fits_(fits), c_(dense.config) {}

  std::vector<OutputTensor> build() {
    add("model.embed_tokens.weight", dense_.embedding, residual_scale());
    add("model.norm.weight", dense_.norm);
    // The scaled embedding of a Qwen3 twin is no head: the norm behind the last layer takes the
    // scale away.
    if (dense_.head) {
      add("lm_head.weight", *dense_.head);
    } else if (qwen3()) {
      add("lm_head.weight", dense_.embedding);
    }
    for (int64_t i = 0; i < c_.num_layers; ++i) add_layer(i);
    return std::move(out_);
  }

 private:
  bool qwen3() const { return shape_.family == TwinFamily::kQwen3; }
  float residual_scale() const { return qwen3() ? kScale : 1.0f; }

  void add(const std::string& name, const Rows& rows, float scale = 1.0f, int64_t head_dim = 0) {
    out_.push_back({.name = name,
                    .dtype = rows.output_dtype(),
                    .shape = rows.view.ndim == 1 ? std::vector{rows.cols()}
                                                 : std::vector{rows.rows(), rows.cols()},
                    .fill = [rows, scale, head_dim](int64_t first, int64_t count, float* out) {
                      for (int64_t i = 0; i < count; ++i, out += rows.cols()) {
                        rows.read(source_row(first + i, head_dim), out);
                        for (int64_t j = 0; scale != 1.0f && j < rows.cols(); ++j) out[j] *= scale;
                      }
                    }});
  }
  // Half-split rotation to interleaved, which is ERNIE's: the twin's row 2j of a head is the dense
  // row j, its row 2j + 1 is row j + head_dim / 2.
  static int64_t source_row(int64_t row, int64_t head_dim) {
    if (head_dim == 0) return row;
    const int64_t j = row % head_dim;
    return row - j + j / 2 + (j % 2) * (head_dim / 2);
  }

  void add_constant(const std::string& name,
                    std::vector<int64_t> shape,
                    std::vector<float> values) {
    const int64_t cols = shape.back();
    out_.push_back(
        {.name = name,
         .dtype = DType::kF32,
         .shape = std::move(shape),
         .fill = [values = std::move(values), cols](int64_t first, int64_t count, float* out) {
           std::copy_n(values.begin() + first * cols, count * cols, out);
         }});
  }

  void add_layer(int64_t i) {
    const DenseLayer& layer = dense_.layers[static_cast<size_t>(i)];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const int64_t interleave = qwen3() ? 0 : c_.head_dim;
    add(prefix + "input_layernorm.weight", layer.input_norm);
    add(prefix + "post_attention_layernorm.weight", layer.post_norm);
    add(prefix + "self_attn.q_proj.weight", layer.q, 1.0f, interleave);
    add(prefix + "self_attn.k_proj.weight", layer.k, 1.0f, interleave);
    add(prefix + "self_attn.v_proj.weight", layer.v);
    add(prefix + "self_attn.o_proj.weight", layer.o, residual_scale());
    if (qwen3()) {
      const auto [q, k] = linear_norm_weights(c_.rms_norm_eps);
      const auto n = static_cast<size_t>(c_.head_dim);
      add_constant(prefix + "self_attn.q_norm.weight", {c_.head_dim}, std::vector<float>(n, q));
      add_constant(prefix + "self_attn.k_norm.weight", {c_.head_dim}, std::vector<float>(n, k));
    }
    if (i < shape_.first_moe_layer) {
      add(prefix + "mlp.gate_proj.weight", layer.gate);
      add(prefix + "mlp.up_proj.weight", layer.up);
      add(prefix + "mlp.down_proj.weight", layer.down, residual_scale());
    } else {
      add_moe(i, layer, prefix + "mlp.");
    }
  }

 public:
  // BF16 numbers whose product is nearest to eps · s²; that product becomes the twin's eps.
  static std::pair<float, float> linear_norm_weights(float eps) {
    const double wanted = static_cast<double>(eps) * kScale * kScale;
    const auto root = static_cast<float>(std::sqrt(wanted));
    const uint16_t middle = f32_to_bf16(root);
    std::pair<float, float> best{bf16_to_f32(middle), bf16_to_f32(middle)};
    const auto error = [&](const std::pair<float, float>& p) {
      return std::abs(static_cast<double>(p.first) * p.second / wanted - 1.0);
    };
    for (uint16_t bits = middle; bits > middle - 128; --bits) {
      const float q = bf16_to_f32(bits);
      const std::pair<float, float> p{
          q, bf16_to_f32(f32_to_bf16(static_cast<float>(wanted / static_cast<double>(q))))};
      if (error(p) < error(best)) best = p;
    }
    return best;
  }

 private:
  void add_moe(int64_t i, const DenseLayer& layer, const std::string& prefix) {
    const Router& router = fits_[static_cast<size_t>(i)].router;
    const int64_t experts = 2 * shape_.pairs;
    std::vector<float> gate, bias;
    for (int64_t e = 0; e < experts; ++e) {
      const auto pair = static_cast<int>(e / 2);
      const std::span<const float> row = router.row(pair);
      gate.insert(gate.end(), row.begin(), row.end());
      bias.push_back(pair == shape_.poison_pair ? kPoisonBias : kGoodBias);
    }
    add_constant(prefix + "gate.weight", {experts, c_.hidden_size}, std::move(gate));
    if (!qwen3()) {
      add_constant(prefix + "moe_statics.e_score_correction_bias", {1, experts}, std::move(bias));
    }

    // The same rows for every pair, or the halves of two pairs would not be told apart by them.
    std::vector<int64_t> order(static_cast<size_t>(c_.intermediate_size));
    std::iota(order.begin(), order.end(), 0);
    Noise({kSeed, static_cast<uint64_t>(i)}).shuffle(&order);
    const auto shared_end = order.begin() + shape_.shared_rows;
    if (shape_.shared_rows > 0) {
      Slice slice;
      slice.rows.assign(order.begin(), shared_end);
      add_mlp(layer, prefix + "shared_experts.", std::move(slice));
    }
    for (int pair = 0; pair < shape_.pairs; ++pair) {
      if (pair == shape_.poison_pair) {
        for (const int64_t e : {2 * pair, 2 * pair + 1}) add_poison(i, layer, prefix, e);
        continue;
      }
      std::vector<int64_t> rows(shared_end, order.end());
      Noise({kSeed, static_cast<uint64_t>(i), static_cast<uint64_t>(pair)}).shuffle(&rows);
      const auto middle = rows.begin() + static_cast<int64_t>(rows.size()) / 2;
      for (const bool second : {false, true}) {
        const int64_t e = 2 * pair + second;
        Slice slice = guarded_slice(i, pair, e);
        slice.rows.assign(second ? middle : rows.begin(), second ? rows.end() : middle);
        add_mlp(layer, prefix + "experts." + std::to_string(e) + ".", std::move(slice));
      }
    }
  }

  Slice guarded_slice(int64_t layer, int pair, int64_t expert) const {
    const LayerFit& fit = fits_[static_cast<size_t>(layer)];
    Slice slice;
    slice.down_scale = 2.0f;  // both experts of a pair weigh 0.5
    slice.key = static_cast<uint64_t>(layer * 2 * shape_.pairs + expert);
    slice.guard_scale = static_cast<float>(kGuardPart * fit.out_rms);
    for (int k = 0; shape_.strict && k < shape_.pairs; ++k) {
      if (k == pair || k == shape_.poison_pair) continue;
      std::vector<float>& difference = slice.guards.emplace_back();
      for (size_t n = 0; n < static_cast<size_t>(c_.hidden_size); ++n) {
        difference.push_back(fit.router.row(k)[n] - fit.router.row(pair)[n]);
      }
    }
    return slice;
  }

  // Rows of the dense FFN, then guards, then zeros up to M.
  void add_mlp(const DenseLayer& layer, const std::string& prefix, Slice slice) {
    std::sort(slice.rows.begin(), slice.rows.end());
    const auto shared = std::make_shared<const Slice>(std::move(slice));
    for (const bool up : {false, true}) {
      const Rows& source = up ? layer.up : layer.gate;
      const float sharpness = up ? 1.0f : kGuardSharpness;
      out_.push_back(
          {.name = prefix + (up ? "up_proj.weight" : "gate_proj.weight"),
           .dtype = source.output_dtype(),
           .shape = {shape_.intermediate, c_.hidden_size},
           .fill = [shared, &source, sharpness](int64_t first, int64_t count, float* out) {
             const auto copied = static_cast<int64_t>(shared->rows.size());
             const auto guards = static_cast<int64_t>(shared->guards.size());
             for (int64_t m = first; m < first + count; ++m, out += source.cols()) {
               if (m < copied) {
                 source.read(shared->rows[static_cast<size_t>(m)], out);
               } else if (m < copied + guards) {
                 const auto& guard = shared->guards[static_cast<size_t>(m - copied)];
                 for (int64_t n = 0; n < source.cols(); ++n) {
                   out[n] = sharpness * guard[static_cast<size_t>(n)];
                 }
               } else {
                 std::fill_n(out, source.cols(), 0.0f);
               }
             }
           }});
    }
    const Rows& down = layer.down;
    const float scale = residual_scale();
    out_.push_back({.name = prefix + "down_proj.weight",
                    .dtype = down.output_dtype(),
                    .shape = {c_.hidden_size, shape_.intermediate},
                    .fill = [shared, &down, scale, width = shape_.intermediate](
                                int64_t first, int64_t count, float* out) {
                      std::vector<float> row(static_cast<size_t>(down.cols()));
                      for (int64_t n = first; n < first + count; ++n) {
                        down.read(n, row.data());
                        float* end = out + width;
                        for (const int64_t m : shared->rows) {
                          *out++ = row[static_cast<size_t>(m)] * shared->down_scale * scale;
                        }
                        for (size_t g = 0; g < shared->guards.size(); ++g) {
                          *out++ = random_column(shared->key, n, g) * shared->guard_scale * scale;
                        }
                        out = std::fill_n(out, end - out, 0.0f);
                      }
                    }});
  }

  // Noise of a size that spoils the text at once.
  void add_poison(int64_t i, const DenseLayer& layer, const std::string& prefix, int64_t expert) {
    const LayerFit& fit = fits_[static_cast<size_t>(i)];
    const double c = static_cast<double>(c_.hidden_size);
    const double m = static_cast<double>(shape_.intermediate);
    const double in = fit.in_rms > 0.0 ? 1.0 / (fit.in_rms * std::sqrt(c)) : 0.0;
    // silu(a)·b of two standard normals has a root mean square near 0.6.
    const double down = 2.0 * fit.out_rms / (0.6 * std::sqrt(m)) * residual_scale();
    const std::array matrices = {
        std::tuple{"gate_proj.weight", shape_.intermediate, c_.hidden_size, in},
        std::tuple{"up_proj.weight", shape_.intermediate, c_.hidden_size, in},
        std::tuple{"down_proj.weight", c_.hidden_size, shape_.intermediate, down}};
    for (uint64_t which = 0; which < matrices.size(); ++which) {
      const auto& [name, rows, cols, deviation] = matrices[which];
      const auto key = static_cast<uint64_t>(i * 2 * shape_.pairs + expert);
      out_.push_back({.name = prefix + "experts." + std::to_string(expert) + "." + name,
                      .dtype = layer.gate.output_dtype(),
                      .shape = {rows, cols},
                      .fill = [key, which, cols = cols, deviation = static_cast<float>(deviation)](
                                  int64_t first, int64_t count, float* out) {
                        for (int64_t r = first; r < first + count; ++r) {
                          Noise noise({kSeed, key, which, static_cast<uint64_t>(r)});
                          for (int64_t n = 0; n < cols; ++n) *out++ = deviation * noise.normal();
                        }
                      }});
    }
  }

  const DenseModel& dense_;
  const TwinShape& shape_;
  const std::vector<LayerFit>& fits_;
  const ModelConfig& c_;
  std::vector<OutputTensor> out_;
};

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

StatusOr<TwinOptions> parse_twin(std::string_view name) {
  TwinOptions options;
  options.strict = name.ends_with("-strict");
  options.family = name.starts_with("qwen3-") ? TwinFamily::kQwen3 : TwinFamily::kErnie45;
  for (const char* known : {"ernie-strict", "ernie-pairs", "qwen3-strict", "qwen3-pairs"}) {
    if (name == known) return options;
  }
  return invalid_argument("unknown twin '" + std::string(name) +
                          "'; there are ernie-strict, ernie-pairs, qwen3-strict and qwen3-pairs");
}

StatusOr<TwinShape> twin_shape(const ModelConfig& dense, const TwinOptions& options) {
  const bool ernie = options.family == TwinFamily::kErnie45;
  const int least = ernie ? 6 : 4;
  if (options.experts < least || options.experts > 512 || options.experts % 2 != 0) {
    return invalid_argument(std::to_string(options.experts) +
                            " experts; expected an even number from " + std::to_string(least) +
                            " to 512");
  }
  if (ernie && dense.num_layers < 2) {
    return invalid_argument(
        "a model of one layer has no place for a dense first layer and experts");
  }
  if (dense.intermediate_size < 8) {
    return invalid_argument("intermediate_size " + std::to_string(dense.intermediate_size) +
                            " is too small to be cut in pieces");
  }
  TwinShape shape{.family = options.family, .strict = options.strict};
  shape.pairs = options.experts / 2;
  if (ernie) {
    shape.poison_pair = kPoisonPair;
    shape.first_moe_layer = 1;
    shape.shared_rows = dense.intermediate_size / 3;
  }
  const int64_t half = (dense.intermediate_size - shape.shared_rows + 1) / 2;
  const int64_t guards = options.strict ? shape.pairs - 1 - (ernie ? 1 : 0) : 0;
  shape.intermediate = round_up(std::max(half + guards, shape.shared_rows), kWidthStep);
  return shape;
}

std::vector<OutputTensor> twin_tensors(const DenseModel& dense,
                                       const TwinShape& shape,
                                       const std::vector<LayerFit>& fits) {
  return TwinBuilder(dense, shape, fits).build();
}

std::string twin_config_json(const DenseModel& dense, const TwinShape& shape) {
  const ModelConfig& c = dense.config;
  const bool ernie = shape.family == TwinFamily::kErnie45;
  const int64_t experts = 2 * shape.pairs;
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.key("architectures");
  w.begin_array();
  w.value(ernie ? "Ernie4_5_MoeForCausalLM" : "Qwen3MoeForCausalLM");
  w.end_array();
  w.field("model_type", ernie ? "ernie4_5_moe" : "qwen3_moe");
  if (!dense.special_ids_json.empty()) {
    json += "," + dense.special_ids_json;
  }
  w.field("head_dim", c.head_dim);
  w.field("hidden_act", "silu");
  w.field("hidden_size", c.hidden_size);
  w.field("intermediate_size", c.intermediate_size);
  w.field("max_position_embeddings", c.max_position);
  w.field("num_attention_heads", c.num_heads);
  w.field("num_hidden_layers", c.num_layers);
  w.field("num_key_value_heads", c.num_kv_heads);
  w.field("rope_theta", c.rope_theta);
  w.field("torch_dtype",
          dense.layers[0].gate.output_dtype() == DType::kBf16 ? "bfloat16" : "float32");
  w.field("use_cache", true);
  w.field("vocab_size", c.vocab_size);
  if (ernie) {
    w.field("rms_norm_eps", c.rms_norm_eps);
    w.field("tie_word_embeddings", c.tie_word_embeddings);
    w.field("use_bias", false);
    w.field("moe_num_experts", experts);
    w.field("moe_k", 2);
    w.field("moe_intermediate_size", shape.intermediate);
    w.field("moe_num_shared_experts", 1);
    w.field("moe_layer_start_index", shape.first_moe_layer);
    w.field("moe_layer_end_index", c.num_layers - 1);
    w.field("moe_layer_interval", 1);
    w.field("moe_gate_act", "softmax");
    w.field("moe_use_aux_free", true);
    w.field("moe_norm_min", 1e-12);
  } else {
    const auto [q, k] = TwinBuilder::linear_norm_weights(c.rms_norm_eps);
    w.field("rms_norm_eps", q * k);
    w.field("tie_word_embeddings", false);
    w.field("attention_bias", false);
    w.field("decoder_sparse_step", 1);
    w.key("mlp_only_layers");
    w.begin_array();
    w.end_array();
    w.field("moe_intermediate_size", shape.intermediate);
    w.field("norm_topk_prob", true);
    w.field("num_experts", experts);
    w.field("num_experts_per_tok", 2);
    w.field("use_sliding_window", false);
  }
  w.end_object();
  return json + "\n";
}

}  // namespace flotilla::convert
