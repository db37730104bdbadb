// Draws the routers of a twin: random directions that divide what enters an FFN about evenly among
// the pairs of experts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"

namespace flotilla::convert {

inline constexpr int kNoPair = -1;

struct RouterSpec {
  int num_pairs = 4;
  int poison_pair = kNoPair;  // that pair's rows win often, and must be kept out by the bias
  uint64_t seed = 0;
};

struct Router {
  int64_t hidden = 0;  // C
  // [num_pairs, C]: whole numbers of at most 7 bits times one power of two, so that their
  // differences are exact in BF16. Orthogonal to the mean of the activations but for rounding.
  std::vector<float> rows;
  // On the activations:
  std::vector<double> share;    // [num_pairs]: of the tokens whose largest good logit is the pair's
  double poison_wins = 0.0;     // of the tokens whose largest logit is the poison pair's
  double least_weight_sum = 0;  // of the chosen pair's two probabilities

  std::span<const float> row(int pair) const {
    return std::span(rows).subspan(static_cast<size_t>(pair * hidden), static_cast<size_t>(hidden));
  }
};

// `activations` [T, hidden], T ≥ 1. Of several draws the most even one is taken.
Router draw_router(std::span<const float> activations, int64_t hidden, const RouterSpec& spec);

}  // namespace flotilla::convert
