#include "kernels/moe.h"
#include "engine/model/layers/layers.h"
#include "kernels/cast.h"
#include "kernels/swiglu.h"

namespace flotilla {
namespace {

// The tensors of expert `e` below "…mlp", in whichever way the checkpoint has them.
struct ExpertParts {
  std::vector<LinearPart> gate_up, down;
};
ExpertParts expert_parts(const ModelLoader& loader, const std::string& prefix, int64_t e) {
  const ModelConfig& c = loader.config();
  const int64_t m = c.moe.intermediate_size;
  if (loader.has(prefix + ".experts.gate_up_proj")) {
    return {.gate_up = {{prefix + ".experts.gate_up_proj", 2 * m, e, c.moe.num_experts}},
            .down = {{prefix + ".experts.down_proj", c.hidden_size, e, c.moe.num_experts}}};
  }
  const std::string expert = prefix + ".experts." + std::to_string(e);
  if (loader.paddle()) {
    return {.gate_up = {{expert + ".up_gate_proj", 2 * m}},
            .down = {{expert + ".down_proj", c.hidden_size}}};
  }
  return {.gate_up = {{expert + ".gate_proj", m}, {expert + ".up_proj", m}},
          .down = {{expert + ".down_proj", c.hidden_size}}};
}

void compute_experts(const ExpertWork& work, const MoeFfn& moe, ForwardContext& ctx) {
  Workspace::Scope scope(ctx.workspace);
  const int64_t m = moe.config.intermediate_size;
  const auto gate_up = moe.experts->gate_up(moe.moe_layer);
  const auto down = moe.experts->down(moe.moe_layer);
  const auto groups = static_cast<int64_t>(gate_up.size());
  const TensorView both = ctx.workspace.take(DType::kF32, {work.max_pairs, 2 * m});
  const TensorView h = ctx.workspace.take(ctx.activation, {work.max_pairs, m});
  grouped_linear({.x = work.x,
                  .x_rows = work.x_rows,
                  .offsets = work.offsets,
                  .w = gate_up.data(),
                  .num_groups = groups,
                  .y = both},
                 ctx.stream);
  swiglu({.gate_up = both, .y = h}, ctx.stream);
  grouped_linear({.x = h,
                  .offsets = work.offsets,
                  .w = down.data(),
                  .num_groups = groups,
                  .out_rows = work.out_rows,
                  .y = work.y},
                 ctx.stream);
}

}  // namespace

Status MoeFfn::forward(const TensorView& x,
                       const TensorView& rounded,
                       const TensorView& y,
                       ForwardContext& ctx) const {
  const int64_t rows = x.rows();
  const int64_t k = config.experts_per_token;
  Workspace::Scope scope(ctx.workspace);
  const TensorView scores = ctx.workspace.take(DType::kF32, {rows, config.num_experts});
  gate.forward(x, scores, ctx.stream);
  const TensorView ids = ctx.workspace.take(DType::kI32, {rows, k});
  const TensorView weights = ctx.workspace.take(DType::kF32, {rows, k});
  moe_topk({.logits = scores,
            .bias = correction_bias,
            .ids = ids,
            .weights = weights,
            .renormalize = config.renormalize,
            .norm_min = config.norm_min},
           ctx.stream);
  cast({.x = x, .y = rounded}, ctx.stream);
  FLOTILLA_RETURN_IF_ERROR(ctx.exchange.dispatch(moe_layer, rounded, ids, ctx.stream));
  if (shared) shared->forward(rounded, y, ctx);  // while rows are on their way
  while (true) {
    ExpertWork work;
    StatusOr<bool> more = ctx.exchange.next_work(&work, ctx.stream);
    if (!more.ok()) return more.status();
    if (!*more) break;
    compute_experts(work, *this, ctx);
  }
  return ctx.exchange.combine(weights, shared ? y : TensorView(), y, ctx.stream);
}

StatusOr<MoeFfn> load_moe(ModelLoader& loader,
                          const std::string& prefix,
                          int64_t moe_layer,
                          const ExpertStore* experts) {
  const ModelConfig& c = loader.config();
  MoeFfn moe;
  moe.config = c.moe;
  moe.moe_layer = moe_layer;
  moe.experts = experts;
  const StatusOr<LoadedLinear> gate = loader.linear(
      {{prefix + ".gate", c.moe.num_experts}}, c.hidden_size, false, loader.paddle(), true);
  if (!gate.ok()) return gate.status();
  moe.gate = Linear{gate->weight};
  if (c.moe.correction_bias) {
    const StatusOr<TensorView> bias =
        loader.vector(prefix + ".moe_statics.e_score_correction_bias", {1, c.moe.num_experts});
    if (!bias.ok()) return bias.status();
    moe.correction_bias = *bias;
  }
  if (c.moe.shared_intermediate_size > 0) {
    StatusOr<DenseMlp> shared =
        load_dense_mlp(loader, prefix + ".shared_experts", c.moe.shared_intermediate_size);
    if (!shared.ok()) return shared.status();
    moe.shared = std::make_unique<DenseMlp>(*shared);
  }
  return moe;
}

StatusOr<std::unique_ptr<ExpertStore>> make_expert_store(
    ModelLoader& loader, const std::vector<std::string>& layer_prefixes) {
  const ModelConfig& c = loader.config();
  DType stored = DType::kBf16;
  for (const std::string& prefix : layer_prefixes) {
    for (int64_t e = 0; e < c.moe.num_experts; ++e) {
      const ExpertParts parts = expert_parts(loader, prefix, e);
      FLOTILLA_RETURN_IF_ERROR(loader.claim_unread(parts.gate_up, c.hidden_size));
      FLOTILLA_RETURN_IF_ERROR(loader.claim_unread(parts.down, c.moe.intermediate_size));
      for (const auto* group : {&parts.gate_up, &parts.down}) {
        for (const LinearPart& part : *group) {
          if (loader.stored_type(part) == DType::kF32) stored = DType::kF32;
        }
      }
    }
  }
  const ExpertStore::Shape shape{.num_experts = c.moe.num_experts,
                                 .num_layers = static_cast<int64_t>(layer_prefixes.size()),
                                 .hidden = c.hidden_size,
                                 .intermediate = c.moe.intermediate_size,
                                 .stored = stored};
  return std::make_unique<ExpertStore>(
      shape,
      loader.device(),
      loader.stream(),
      [&loader, layer_prefixes](int64_t layer, ExpertId expert, const ExpertWeights& into) {
        const ExpertParts parts =
            expert_parts(loader, layer_prefixes[static_cast<size_t>(layer)], expert.value);
        FLOTILLA_RETURN_IF_ERROR(loader.fill(parts.gate_up, into.gate_up));
        return loader.fill(parts.down, into.down);
      });
}

}  // namespace flotilla
