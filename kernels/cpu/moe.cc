#include "kernels/cpu/cpu_stream.h"

namespace flotilla::cpu {

void moe_topk(const MoeTopkParams& p, Stream& stream) {
  constexpr int64_t kMaxExperts = 4096;
  CpuStream& s = cpu_stream(stream);
  const int64_t experts = p.logits.cols(), k = p.ids.cols();
  check(experts <= kMaxExperts,
        "moe_topk: " + std::to_string(experts) + " experts, expected at most " +
            std::to_string(kMaxExperts));
  s.parallel_for_each(p.logits.rows(), experts * 2, [&](int64_t t) {
    float probabilities[kMaxExperts];
    s.isa().topk_row({.logits = p.logits.row<float>(t),
                      .bias = p.bias.as<float>(),
                      .experts = experts,
                      .k = k,
                      .ids = p.ids.row<int32_t>(t),
                      .weights = p.weights.row<float>(t),
                      .probabilities = probabilities,
                      .renormalize = p.renormalize,
                      .norm_min = p.norm_min});
  });
}

void moe_combine(const MoeCombineParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int64_t c = p.y.cols(), k = p.weights.cols();
  s.parallel_for_each(p.y.rows(), c * (k + 1) / 4, [&](int64_t t) {
    const float* const base = p.base.empty() ? nullptr : p.base.row<float>(t);
    s.isa().combine_row(p.rows.row<float>(t * k),
                        p.rows.row_stride,
                        p.weights.row<float>(t),
                        k,
                        base,
                        p.y.row<float>(t),
                        c);
  });
}

}  // namespace flotilla::cpu
