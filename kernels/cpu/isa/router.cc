// The router of a Mixture-of-Experts layer, and the sum of its experts' rows.
#include "kernels/cpu/isa/ops.h"
#include "kernels/cpu/isa/simd.h"

namespace flotilla::FLOTILLA_ISA {
namespace {

// softmax over all experts; NaN counts as -inf, and what equals the largest as e^0, so that
// infinities stay numbers.
void softmax(const float* logits, int64_t n, float* probabilities) {
  const Floats lowest = broadcast(-__builtin_inff());
  Floats largest_lanes = lowest;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i < kLanes ? n - i : kLanes;
    Floats x = load_first(logits + i, left);
    const uint32_t there = (1u << left) - 1;
    x = select(lanes_equal(x, x) & there, x, lowest);
    store_first(probabilities + i, x, left);
    largest_lanes = max(largest_lanes, x);
  }
  const float largest = max_lanes(largest_lanes);
  if (largest == -__builtin_inff()) {
    memset(probabilities, 0, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  Floats sums = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i < kLanes ? n - i : kLanes;
    const uint32_t there = (1u << left) - 1;
    const Floats x = load_first(probabilities + i, left);
    const uint32_t best = lanes_equal(x, broadcast(largest));
    Floats e = select(best, broadcast(1.0f), exp(sub(x, broadcast(largest))));
    e = select(there, e, zero());
    store_first(probabilities + i, e, left);
    sums = add(sums, e);
  }
  const Floats total = broadcast(sum_lanes(sums));
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i < kLanes ? n - i : kLanes;
    store_first(probabilities + i, div(load_first(probabilities + i, left), total), left);
  }
}

}  // namespace

void topk_row(const TopkTask& t) {
  softmax(t.logits, t.experts, t.probabilities);
  // Insertion into the k best so far, best first; experts come in ascending id, so that only a
  // larger score goes ahead.
  int64_t kept = 0;
  const auto score = [&](int64_t e) { return t.probabilities[e] + (t.bias ? t.bias[e] : 0.0f); };
  for (int64_t e = 0; e < t.experts; ++e) {
    const float s = score(e);
    if (kept == t.k && !(s > score(t.ids[kept - 1]))) continue;
    int64_t at = kept < t.k ? kept++ : kept - 1;
    while (at > 0 && s > score(t.ids[at - 1])) {
      t.ids[at] = t.ids[at - 1];
      --at;
    }
    t.ids[at] = static_cast<int32_t>(e);
  }
  for (int64_t i = 1; i < t.k; ++i) {  // by expert id
    const int32_t id = t.ids[i];
    int64_t at = i;
    for (; at > 0 && t.ids[at - 1] > id; --at) t.ids[at] = t.ids[at - 1];
    t.ids[at] = id;
  }

  float sum = 0.0f;
  for (int64_t j = 0; j < t.k; ++j) sum += t.probabilities[t.ids[j]];
  const float divisor = !t.renormalize ? 1.0f : sum > t.norm_min ? sum : t.norm_min;
  for (int64_t j = 0; j < t.k; ++j) {
    t.weights[j] = divisor > 0.0f ? t.probabilities[t.ids[j]] / divisor : 0.0f;
  }
}

void combine_row(const float* rows,
                 int64_t row_stride,
                 const float* weights,
                 int64_t k,
                 const float* base,
                 float* y,
                 int64_t c) {
  for (int64_t i = 0; i < c; i += kLanes) {
    const int64_t n = c - i < kLanes ? c - i : kLanes;
    Floats sum = base ? load_first(base + i, n) : zero();
    for (int64_t j = 0; j < k; ++j) {
      sum = fma(broadcast(weights[j]), load_first(rows + j * row_stride + i, n), sum);
    }
    store_first(y + i, sum, n);
  }
}

}  // namespace flotilla::FLOTILLA_ISA
