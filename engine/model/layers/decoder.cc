#include "engine/model/layers/decoder.h"

namespace flotilla {

StatusOr<TensorView> Decoder::forward(ForwardContext& ctx) {
  const int64_t rows = ctx.in.tokens.rows();
  const int64_t hidden = parts_.embedding.table.cols();
  const TensorView residual = ctx.workspace.take(DType::kF32, {rows, hidden});
  const TensorView x = ctx.workspace.take(ctx.activation, {rows, hidden});
  const TensorView delta =
      ctx.workspace.take(DType::kF32, {rows, hidden});  // what the last part added

  // Where the next part wants its input: behind a norm either x, rounded to the activation type, or delta itself.
  const auto attention_input = [&](const DecoderLayer& layer) { return layer.attention.f32_input ? delta : x; };

  parts_.embedding.forward(ctx.in.tokens, residual, ctx);
  const DecoderLayer& first = parts_.layers.front();
  first.input_norm.forward(residual, {}, attention_input(first), ctx);
  for (size_t i = 0; i < parts_.layers.size(); ++i) {
    const DecoderLayer& layer = parts_.layers[i];
    layer.attention.forward(attention_input(layer), delta, static_cast<int64_t>(i), ctx);
    if (const auto* dense = std::get_if<DenseMlp>(&layer.ffn)) {
      layer.post_norm.forward(delta, residual, x, ctx);
      dense->forward(x, delta, ctx);
    } else {
      // The router sees the norm's output unrounded: a near tie must not flip an expert.
      layer.post_norm.forward(delta, residual, delta, ctx);
      FLOTILLA_RETURN_IF_ERROR(std::get<MoeFfn>(layer.ffn).forward(delta, x, delta, ctx));
    }
    if (i + 1 == parts_.layers.size()) {
      parts_.norm.forward(delta, residual, x, ctx);
    } else {
      const DecoderLayer& next = parts_.layers[i + 1];
      next.input_norm.forward(delta, residual, attention_input(next), ctx);
    }
    ctx.progress.fetch_add(1, std::memory_order_relaxed);
  }
  return x;
}

void Decoder::logits(const TensorView& hidden, const TensorView& logits, Stream& stream) {
  parts_.head.forward(hidden, logits, stream);
}

size_t forward_workspace_bytes(const ModelConfig& config, int64_t rows, int64_t max_expert_pairs) {
  const auto bytes = [](int64_t count, int64_t width) {
    return Workspace::round_up(static_cast<size_t>(count * width) * 4);
  };
  const int64_t c = config.hidden_size;
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t qkv = q + 2 * config.num_kv_heads * config.head_dim;
  const size_t kept = 3 * bytes(rows, c);
  const size_t attention = bytes(rows, qkv) + 2 * bytes(rows, q);
  const int64_t dense_width =
      std::max(config.intermediate_size, config.moe.shared_intermediate_size);
  const size_t dense = bytes(rows, 3 * dense_width);
  const size_t moe = bytes(rows, config.moe.num_experts) +
                     2 * bytes(rows, config.moe.experts_per_token) +
                     std::max(dense, bytes(max_expert_pairs, 3 * config.moe.intermediate_size));
  return kept + std::max({attention, dense, moe}) + 4096;
}

Status load_decoder_ends(ModelLoader& loader, Decoder::Parts* parts) {
  const ModelConfig& c = loader.config();
  const std::string embedding_name = loader.prefix() + "embed_tokens";
  const StatusOr<TensorView> table =
      loader.table(embedding_name + ".weight", c.vocab_size, c.hidden_size);
  if (!table.ok()) return table.status();
  parts->embedding.table = *table;

  StatusOr<RmsNorm> norm = load_rms_norm(loader, loader.prefix() + "norm", c.hidden_size);
  if (!norm.ok()) return norm.status();
  parts->norm = *norm;

  if (c.tie_word_embeddings) loader.source().ignore_prefix("lm_head.weight");
  const bool transposed = loader.paddle() && !c.tie_word_embeddings;
  const std::string head_name = c.tie_word_embeddings ? embedding_name : "lm_head";
  const StatusOr<LoadedLinear> head =
      loader.linear({{head_name, c.vocab_size}}, c.hidden_size, false, transposed);
  if (!head.ok()) return head.status();
  parts->head = Linear{head->weight};
  return ok_status();
}

StatusOr<DecoderLayer> load_decoder_layer(ModelLoader& loader,
                                          int64_t layer,
                                          int64_t moe_layer,
                                          const RotaryTables& rotary,
                                          const ExpertStore* experts) {
  const ModelConfig& c = loader.config();
  const std::string prefix = loader.prefix() + "layers." + std::to_string(layer);
  DecoderLayer out;
  StatusOr<RmsNorm> input_norm = load_rms_norm(loader, prefix + ".input_layernorm", c.hidden_size);
  if (!input_norm.ok()) return input_norm.status();
  out.input_norm = *input_norm;
  StatusOr<Attention> attention = load_attention(loader, prefix + ".self_attn", rotary);
  if (!attention.ok()) return attention.status();
  out.attention = *attention;
  StatusOr<RmsNorm> post_norm =
      load_rms_norm(loader, prefix + ".post_attention_layernorm", c.hidden_size);
  if (!post_norm.ok()) return post_norm.status();
  out.post_norm = *post_norm;
  if (c.layer_is_moe[static_cast<size_t>(layer)]) {
    StatusOr<MoeFfn> moe = load_moe(loader, prefix + ".mlp", moe_layer, experts);
    if (!moe.ok()) return moe.status();
    out.ffn = std::move(*moe);
  } else {
    StatusOr<DenseMlp> mlp = load_dense_mlp(loader, prefix + ".mlp", c.intermediate_size);
    if (!mlp.ok()) return mlp.status();
    out.ffn = *mlp;
  }
  return out;
}

StatusOr<std::unique_ptr<CausalLm>> load_decoder(ModelLoader& loader) {
  const ModelConfig& c = loader.config();
  Decoder::Parts parts;
  FLOTILLA_RETURN_IF_ERROR(load_decoder_ends(loader, &parts));
  const StatusOr<RotaryTables> rotary = make_rotary_tables(loader);
  if (!rotary.ok()) return rotary.status();
  std::vector<std::string> moe_prefixes;
  for (int64_t i = 0; i < c.num_layers; ++i) {
    if (c.layer_is_moe[static_cast<size_t>(i)]) {
      moe_prefixes.push_back(loader.prefix() + "layers." + std::to_string(i) + ".mlp");
    }
  }
  if (!moe_prefixes.empty()) {
    StatusOr<std::unique_ptr<ExpertStore>> store = make_expert_store(loader, moe_prefixes);
    if (!store.ok()) return store.status();
    parts.experts = std::move(*store);
  }
  int64_t moe_layer = 0;
  for (int64_t i = 0; i < c.num_layers; ++i) {
    StatusOr<DecoderLayer> layer =
        load_decoder_layer(loader, i, moe_layer, *rotary, parts.experts.get());
    if (!layer.ok()) return layer.status();
    parts.layers.push_back(std::move(*layer));
    if (c.layer_is_moe[static_cast<size_t>(i)]) ++moe_layer;
  }
  return std::unique_ptr<CausalLm>(std::make_unique<Decoder>(std::move(parts)));
}

}  // namespace flotilla
