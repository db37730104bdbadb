#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/element.h"
#include "kernels/reference/reference_table.h"

namespace flotilla::reference {

void moe_topk(const MoeTopkParams& p, Stream&) {
  const int64_t experts = p.logits.cols(), k = p.ids.cols();
  constexpr double kLowest = -std::numeric_limits<double>::infinity();
  for (int64_t t = 0; t < p.logits.rows(); ++t) {
    const auto logit = [&](int64_t e) {
      const double value = load(p.logits, t, e);
      return std::isnan(value) ? kLowest : value;
    };
    double largest = kLowest, total = 0.0;
    for (int64_t e = 0; e < experts; ++e) largest = std::max(largest, logit(e));
    // Equal to the largest counts as e^0, so that infinities stay numbers.
    const auto exponential = [&](int64_t e) {
      if (logit(e) == kLowest) return 0.0;
      return logit(e) == largest ? 1.0 : std::exp(logit(e) - largest);
    };
    for (int64_t e = 0; e < experts; ++e) total += exponential(e);
    const auto probability = [&](int64_t e) {
      return total > 0.0 ? static_cast<float>(exponential(e) / total) : 0.0f;
    };

    int32_t* ids = p.ids.row<int32_t>(t);
    for (int64_t j = 0; j < k; ++j) {
      int32_t best = -1;
      float best_score = 0.0f;
      for (int32_t e = 0; e < experts; ++e) {
        if (std::find(ids, ids + j, e) != ids + j) continue;
        const float score = probability(e) + (p.bias.empty() ? 0.0f : p.bias.as<float>()[e]);
        if (best < 0 || score > best_score) {
          best = e;
          best_score = score;
        }
      }
      ids[j] = best;
    }
    std::sort(ids, ids + k);

    float sum = 0.0f;
    for (int64_t j = 0; j < k; ++j) sum += probability(ids[j]);
    const float divisor = p.renormalize ? std::max(sum, p.norm_min) : 1.0f;
    for (int64_t j = 0; j < k; ++j) {
      store(p.weights, t, j, divisor > 0.0f ? probability(ids[j]) / divisor : 0.0f);
    }
  }
}

void moe_combine(const MoeCombineParams& p, Stream&) {
  const int64_t k = p.weights.cols();
  for (int64_t t = 0; t < p.y.rows(); ++t) {
    for (int64_t c = 0; c < p.y.cols(); ++c) {
      double sum = p.base.empty() ? 0.0 : load(p.base, t, c);
      for (int64_t j = 0; j < k; ++j) {
        sum += static_cast<double>(load(p.weights, t, j)) * load(p.rows, t * k + j, c);
      }
      store(p.y, t, c, static_cast<float>(sum));
    }
  }
}

}  // namespace flotilla::reference
