#include "tools/convert/router.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tools/convert/noise.h"

namespace flotilla::convert {
namespace {

constexpr int kDraws = 8;
constexpr int kLargestInteger = 127;
constexpr double kLogitDeviation = 1.0;
// Poison logits are spread wider, so that they are often the largest, and less if the good pairs'
// probabilities would get so small that other engines' lower bounds of the renormalising sum (up to
// 6e-5) come near.
constexpr double kPoisonDeviation = 1.75;
constexpr double kLeastWeightSum = 4e-3;

class Activations {
 public:
  Activations(std::span<const float> values, int64_t hidden)
      : values_(values),
        hidden_(static_cast<size_t>(hidden)),
        rows_(values.size() / hidden_),
        mean_(hidden_) {
    for (size_t t = 0; t < rows_; ++t) {
      for (size_t i = 0; i < hidden_; ++i) mean_[i] += values_[t * hidden_ + i];
    }
    for (double& m : mean_) m /= static_cast<double>(rows_);
  }

  size_t rows() const { return rows_; }
  size_t hidden() const { return hidden_; }

  // Takes the mean's direction out of `row`, and scales it to a deviation of its logits.
  void fit(std::vector<double>* row, double deviation) const {
    double along = 0.0, length = 0.0;
    for (size_t i = 0; i < hidden_; ++i) {
      along += (*row)[i] * mean_[i];
      length += mean_[i] * mean_[i];
    }
    for (size_t i = 0; length > 0.0 && i < hidden_; ++i) (*row)[i] -= along / length * mean_[i];
    double squares = 0.0;
    for (size_t t = 0; t < rows_; ++t) {
      const double logit = dot(*row, t);
      squares += logit * logit;
    }
    const double found = std::sqrt(squares / static_cast<double>(rows_));
    if (found > 0.0) {
      for (double& v : *row) v *= deviation / found;
    }
  }

  // Sums in several lanes, which the compiler keeps in registers.
  template <typename T>
  double dot(const std::vector<T>& row, size_t t) const {
    constexpr size_t kLanes = 8;
    const float* x = values_.data() + t * hidden_;
    std::array<double, kLanes> lanes{};
    size_t i = 0;
    for (; i + kLanes <= hidden_; i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) {
        lanes[j] += static_cast<double>(row[i + j]) * static_cast<double>(x[i + j]);
      }
    }
    double sum = 0.0;
    for (; i < hidden_; ++i) sum += static_cast<double>(row[i]) * static_cast<double>(x[i]);
    for (const double lane : lanes) sum += lane;
    return sum;
  }

 private:
  std::span<const float> values_;
  size_t hidden_;
  size_t rows_;
  std::vector<double> mean_;
};

// All rows in whole numbers of one unit, the smallest power of two that keeps them in 7 bits.
std::vector<float> round_rows(const std::vector<std::vector<double>>& rows) {
  double largest = 0.0;
  for (const auto& row : rows) {
    for (const double v : row) largest = std::max(largest, std::abs(v));
  }
  int exponent = 0;
  std::frexp(largest / kLargestInteger, &exponent);  // 2^exponent > largest / 127
  const double unit = std::ldexp(1.0, exponent);
  std::vector<float> out;
  for (const auto& row : rows) {
    for (const double v : row) out.push_back(static_cast<float>(std::nearbyint(v / unit) * unit));
  }
  return out;
}

void measure(const Activations& a, const RouterSpec& spec, Router* router) {
  const auto pairs = static_cast<size_t>(spec.num_pairs);
  router->share.assign(pairs, 0.0);
  router->poison_wins = 0.0;
  router->least_weight_sum = 1.0;
  std::vector<std::vector<float>> rows;
  for (int p = 0; p < spec.num_pairs; ++p) {
    rows.emplace_back(router->row(p).begin(), router->row(p).end());
  }
  const double one = 1.0 / static_cast<double>(a.rows());
  std::vector<double> logits(pairs);
  for (size_t t = 0; t < a.rows(); ++t) {
    int best = kNoPair;
    double sum = 0.0;
    for (int p = 0; p < spec.num_pairs; ++p) {
      const auto i = static_cast<size_t>(p);
      logits[i] = a.dot(rows[i], t);
      sum += std::exp(logits[i]);
      if (p == spec.poison_pair) continue;
      if (best == kNoPair || logits[i] > logits[static_cast<size_t>(best)]) best = p;
    }
    const double chosen = logits[static_cast<size_t>(best)];
    router->share[static_cast<size_t>(best)] += one;
    router->least_weight_sum = std::min(router->least_weight_sum, std::exp(chosen) / sum);
    if (spec.poison_pair != kNoPair && logits[static_cast<size_t>(spec.poison_pair)] > chosen) {
      router->poison_wins += one;
    }
  }
}

Router draw(const Activations& a, const RouterSpec& spec, uint64_t draw, double poison_deviation) {
  std::vector<std::vector<double>> rows;
  for (int p = 0; p < spec.num_pairs; ++p) {
    Noise noise({spec.seed, draw, static_cast<uint64_t>(p)});
    std::vector<double>& row = rows.emplace_back();
    for (size_t i = 0; i < a.hidden(); ++i) row.push_back(noise.normal());
    a.fit(&row, p == spec.poison_pair ? poison_deviation : kLogitDeviation);
  }
  Router router;
  router.hidden = static_cast<int64_t>(a.hidden());
  router.rows = round_rows(rows);
  measure(a, spec, &router);
  return router;
}

double least_share(const Router& router, int poison_pair) {
  double least = 1.0;
  for (size_t p = 0; p < router.share.size(); ++p) {
    if (static_cast<int>(p) != poison_pair) least = std::min(least, router.share[p]);
  }
  return least;
}

}  // namespace

Router draw_router(std::span<const float> activations, int64_t hidden, const RouterSpec& spec) {
  const Activations a(activations, hidden);
  Router best;
  for (uint64_t i = 0; i < kDraws; ++i) {
    double deviation = kPoisonDeviation;
    Router router = draw(a, spec, i, deviation);
    while (router.least_weight_sum < kLeastWeightSum && deviation > 0.5) {
      deviation *= 0.8;
      router = draw(a, spec, i, deviation);
    }
    if (best.rows.empty() ||
        least_share(router, spec.poison_pair) > least_share(best, spec.poison_pair)) {
      best = std::move(router);
    }
  }
  return best;
}

}  // namespace flotilla::convert
