#include "engine/model/layers/layers.h"

#include <cmath>
#include <cstring>

#include "kernels/embedding.h"
#include "kernels/paged_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_cache.h"
#include "kernels/swiglu.h"

namespace flotilla {

void RmsNorm::forward(const TensorView& x,
                      const TensorView& residual,
                      const TensorView& y,
                      ForwardContext& ctx) const {
  rms_norm({.y = y, .x = x, .w = weight, .residual = residual, .eps = eps}, ctx.stream);
}

StatusOr<RmsNorm> load_rms_norm(ModelLoader& loader, const std::string& name, int64_t size) {
  const StatusOr<TensorView> weight = loader.vector(name + ".weight", size);
  if (!weight.ok()) return weight.status();
  return RmsNorm{*weight, loader.config().rms_norm_eps};
}

void Linear::forward(const TensorView& x, const TensorView& y, Stream& stream) const {
  linear({.x = x, .w = weight, .bias = bias, .y = y}, stream);
}

StatusOr<Linear> load_linear(ModelLoader& loader,
                             const std::vector<LinearPart>& parts,
                             int64_t k,
                             bool bias) {
  const StatusOr<LoadedLinear> loaded = loader.linear(parts, k, bias);
  if (!loaded.ok()) return loaded.status();
  return Linear{loaded->weight, loaded->bias};
}

void Embedding::forward(const TensorView& tokens, const TensorView& y, ForwardContext& ctx) const {
  embedding({.table = table, .ids = tokens, .y = y}, ctx.stream);
}

StatusOr<RotaryTables> make_rotary_tables(ModelLoader& loader) {
  const ModelConfig& c = loader.config();
  const int64_t half = c.head_dim / 2;
  const int64_t positions = loader.options().max_positions;
  std::vector<float> frequency(static_cast<size_t>(half));
  for (int64_t j = 0; j < half; ++j) {
    double f =
        std::pow(c.rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(c.head_dim));
    if (c.rope_scaling) {
      const Llama3RopeScaling& s = *c.rope_scaling;
      const double wavelength = 2.0 * M_PI / f;
      if (wavelength > s.original_max_position / s.low_freq_factor) {
        f /= s.factor;
      } else if (wavelength > s.original_max_position / s.high_freq_factor) {
        const double smooth = (s.original_max_position / wavelength - s.low_freq_factor) /
                              (s.high_freq_factor - s.low_freq_factor);
        f = (1.0 - smooth) * f / s.factor + smooth * f;
      }
    }
    frequency[static_cast<size_t>(j)] = static_cast<float>(f);
  }
  const StatusOr<void*> memory = loader.allocate(static_cast<size_t>(2 * positions * half) * 4);
  if (!memory.ok()) return memory.status();
  RotaryTables tables;
  tables.cos = TensorView(*memory, DType::kF32, {positions, half});
  tables.sin =
      TensorView(tables.cos.as<float>() + positions * half, DType::kF32, {positions, half});
  for (int64_t p = 0; p < positions; ++p) {
    // The phase is a float, as in the reference implementation: positions × frequency in single
    // precision.
    const auto position = static_cast<float>(static_cast<double>(p) / c.position_divisor);
    for (int64_t j = 0; j < half; ++j) {
      const float phase = position * frequency[static_cast<size_t>(j)];
      tables.cos.row<float>(p)[j] = std::cos(phase);
      tables.sin.row<float>(p)[j] = std::sin(phase);
    }
  }
  return tables;
}

void Attention::forward(const TensorView& x,
                        const TensorView& y,
                        int64_t layer,
                        ForwardContext& ctx) const {
  const int64_t rows = x.rows();
  Workspace::Scope scope(ctx.workspace);
  const TensorView projected = ctx.workspace.take(DType::kF32, {rows, qkv.weight.n});
  qkv.forward(x, projected, ctx.stream);
  const DType q_type = f32_input ? DType::kF32 : ctx.activation;
  const TensorView q = ctx.workspace.take(q_type, {rows, num_heads, head_dim});
  rope_cache({.qkv = projected,
              .q_norm = q_norm,
              .k_norm = k_norm,
              .eps = eps,
              .style = style,
              .cos = rotary.cos,
              .sin = rotary.sin,
              .positions = ctx.in.positions,
              .slots = ctx.in.slots,
              .q = q,
              .cache = ctx.kv_cache,
              .layout = ctx.layout,
              .layer = layer},
             ctx.stream);
  const TensorView mixed = ctx.workspace.take(ctx.activation, {rows, num_heads, head_dim});
  void* scratch = ctx.workspace.take_bytes(
      paged_attention_workspace_bytes(rows, num_heads, ctx.in.max_context, ctx.layout, ctx.stream));
  paged_attention({.q = q,
                   .out = mixed,
                   .q_offsets = ctx.in.q_offsets,
                   .context = ctx.in.context,
                   .block_table = ctx.in.block_table,
                   .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                   .cache = ctx.kv_cache,
                   .layout = ctx.layout,
                   .layer = layer,
                   .workspace = scratch},
                  ctx.stream);
  o.forward(TensorView(mixed.data, ctx.activation, {rows, num_heads * head_dim}), y, ctx.stream);
}

StatusOr<Attention> load_attention(ModelLoader& loader,
                                   const std::string& prefix,
                                   const RotaryTables& rotary) {
  const ModelConfig& c = loader.config();
  Attention a;
  a.rotary = rotary;
  a.num_heads = c.num_heads;
  a.num_kv_heads = c.num_kv_heads;
  a.head_dim = c.head_dim;
  a.style = c.rope_style;
  a.eps = c.rms_norm_eps;
  a.f32_input = c.has_moe();
  const int64_t q_rows = c.num_heads * c.head_dim;
  const int64_t kv_rows = c.num_kv_heads * c.head_dim;
  const std::vector<LinearPart> fused = {{prefix + ".qkv_proj", q_rows + 2 * kv_rows}};
  const std::vector<LinearPart> separate = {
      {prefix + ".q_proj", q_rows}, {prefix + ".k_proj", kv_rows}, {prefix + ".v_proj", kv_rows}};
  StatusOr<Linear> qkv =
      load_linear(loader, loader.paddle() ? fused : separate, c.hidden_size, c.attention_bias);
  if (!qkv.ok()) return qkv.status();
  a.qkv = *qkv;
  StatusOr<Linear> o =
      load_linear(loader, {{prefix + ".o_proj", c.hidden_size}}, q_rows, c.attention_bias);
  if (!o.ok()) return o.status();
  a.o = *o;
  if (c.qk_norm) {
    const StatusOr<TensorView> q_norm = loader.vector(prefix + ".q_norm.weight", c.head_dim);
    if (!q_norm.ok()) return q_norm.status();
    const StatusOr<TensorView> k_norm = loader.vector(prefix + ".k_norm.weight", c.head_dim);
    if (!k_norm.ok()) return k_norm.status();
    a.q_norm = *q_norm;
    a.k_norm = *k_norm;
  }
  return a;
}

void DenseMlp::forward(const TensorView& x, const TensorView& y, ForwardContext& ctx) const {
  Workspace::Scope scope(ctx.workspace);
  const TensorView both = ctx.workspace.take(DType::kF32, {x.rows(), gate_up.weight.n});
  const TensorView h = ctx.workspace.take(ctx.activation, {x.rows(), down.weight.k});
  gate_up.forward(x, both, ctx.stream);
  swiglu({.gate_up = both, .y = h}, ctx.stream);
  down.forward(h, y, ctx.stream);
}

StatusOr<DenseMlp> load_dense_mlp(ModelLoader& loader,
                                  const std::string& prefix,
                                  int64_t intermediate) {
  const ModelConfig& c = loader.config();
  const std::vector<LinearPart> fused = {{prefix + ".up_gate_proj", 2 * intermediate}};
  const std::vector<LinearPart> separate = {{prefix + ".gate_proj", intermediate},
                                            {prefix + ".up_proj", intermediate}};
  StatusOr<Linear> gate_up =
      load_linear(loader, loader.paddle() ? fused : separate, c.hidden_size, c.mlp_bias);
  if (!gate_up.ok()) return gate_up.status();
  StatusOr<Linear> down =
      load_linear(loader, {{prefix + ".down_proj", c.hidden_size}}, intermediate, c.mlp_bias);
  if (!down.ok()) return down.status();
  return DenseMlp{*gate_up, *down};
}

}  // namespace flotilla
