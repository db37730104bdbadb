#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/element.h"
#include "kernels/reference/reference_table.h"

// Weights of the draw are fixed-point numbers (2^30 is the best token's), so that their sums are
// exact in any order: what is kept and what is drawn cannot depend on how a device adds.
namespace flotilla::reference {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr double kWeightOne = 0x1p30;

float without_nan(float logit) { return std::isnan(logit) ? kLowest : logit; }

// Better: the larger value, among equals the lower id.
struct Better {
  const float* values;
  bool operator()(int32_t a, int32_t b) const {
    const float x = without_nan(values[a]), y = without_nan(values[b]);
    return x > y || (x == y && a < b);
  }
};

struct Logprobs {
  const float* logits;
  int64_t v;
  double largest, log_sum;

  Logprobs(const float* l, int64_t n) : logits(l), v(n), largest(kLowest), log_sum(0.0) {
    for (int64_t i = 0; i < v; ++i) largest = std::max<double>(largest, without_nan(l[i]));
    double sum = 0.0;
    for (int64_t i = 0; i < v; ++i) sum += std::exp(distance(i));
    log_sum = std::log(sum);
  }
  // Logit minus the largest; 0 for the largest itself, so that infinities stay numbers.
  double distance(int64_t i) const {
    const double x = without_nan(logits[i]);
    if (x == largest) return 0.0;
    return x - largest;
  }
  float at(int64_t i) const { return static_cast<float>(distance(i) - log_sum); }
};

struct LogprobOutputs {
  const TensorView &logprobs, &ranks, &top_ids, &top_logprobs;
};

void write_logprobs(const float* logits,
                    int64_t v,
                    int32_t target,
                    int64_t num_top,
                    int64_t row,
                    const LogprobOutputs& out) {
  check(target >= 0 && target < v, "log probabilities: a token lies outside of the vocabulary");
  const Logprobs logprobs(logits, v);
  const Better better{logits};
  int32_t rank = 1;
  for (int32_t i = 0; i < v; ++i) rank += better(i, target);
  out.logprobs.as<float>()[row] = logprobs.at(target);
  out.ranks.as<int32_t>()[row] = rank;
  if (num_top == 0) return;
  check(!out.top_ids.empty() && num_top <= out.top_ids.cols(),
        "log probabilities: more are asked for than the outputs hold");
  int32_t* ids = out.top_ids.row<int32_t>(row);
  for (int64_t j = 0; j < num_top; ++j) {
    int32_t best = -1;
    for (int32_t i = 0; i < v; ++i) {
      if ((best < 0 || better(i, best)) && std::find(ids, ids + j, i) == ids + j) best = i;
    }
    ids[j] = best;
    out.top_logprobs.row<float>(row)[j] = best < 0 ? kLowest : logprobs.at(best);
  }
}

bool allowed(const SampleParams& p, const SamplerRow& r, int32_t id) {
  if (r.mask_row >= 0) {
    const auto word = static_cast<uint32_t>(p.allowed.row<int32_t>(r.mask_row)[id / 32]);
    if ((word >> id % 32 & 1) == 0) return false;
  }
  return std::find(p.banned + r.banned_begin, p.banned + r.banned_end, id) ==
         p.banned + r.banned_end;
}

// Bias, then the penalties as vLLM orders them: repetition, frequency, presence.
void adjust(const SampleParams& p, const SamplerRow& r, int64_t v, float* x) {
  for (int32_t i = r.bias_begin; i < r.bias_end; ++i) {
    check(p.bias[i].token >= 0 && p.bias[i].token < v,
          "sample: a biased token lies outside of the vocabulary");
    x[p.bias[i].token] += p.bias[i].bias;
  }
  for (int32_t i = r.seen_begin; i < r.seen_end; ++i) {
    const SeenToken seen = p.seen[i];
    check(seen.token >= 0 && seen.token < v, "sample: a seen token lies outside of the vocabulary");
    float& logit = x[seen.token];
    logit = logit > 0.0f ? logit / r.repetition_penalty : logit * r.repetition_penalty;
    if (seen.produced > 0) {
      logit -= r.frequency_penalty * static_cast<float>(seen.produced);
      logit -= r.presence_penalty;
    }
  }
}

// `order` has the n tokens that may be drawn, best first. Writes weights[id] of them, leaves the
// kept ones at the front and returns how many.
int64_t keep(
    const SamplerRow& r, const float* x, const int32_t* order, int64_t n, uint64_t* weights) {
  const auto relative = [&](int64_t i) {
    if (x[order[i]] == x[order[0]]) return 1.0;
    return std::exp((static_cast<double>(x[order[i]]) - x[order[0]]) / r.temperature);
  };
  int64_t kept = 1;
  while (kept < n && relative(kept) >= r.min_p) ++kept;
  n = r.top_k > 0 ? std::min<int64_t>(kept, r.top_k) : kept;

  uint64_t total = 0;
  for (int64_t i = 0; i < n; ++i) {
    weights[order[i]] = static_cast<uint64_t>(std::nearbyint(relative(i) * kWeightOne));
    total += weights[order[i]];
  }
  if (r.top_p >= 1.0f) return n;
  const double enough = static_cast<double>(r.top_p) * static_cast<double>(total);
  uint64_t sum = weights[order[0]];
  kept = 1;
  while (kept < n && static_cast<double>(sum) < enough) sum += weights[order[kept++]];
  return kept;
}

int32_t choose(
    const SampleParams& p, const SamplerRow& r, const float* raw, int64_t v, void* workspace) {
  auto* weights = static_cast<uint64_t*>(workspace);
  auto* x = reinterpret_cast<float*>(weights + v);
  auto* order = reinterpret_cast<int32_t*>(x + v);
  std::copy(raw, raw + v, x);
  adjust(p, r, v, x);
  int64_t n = 0;
  for (int32_t i = 0; i < v; ++i) {
    if (allowed(p, r, i) && without_nan(x[i]) > kLowest) order[n++] = i;
  }
  if (n == 0) {
    for (int32_t i = 0; i < v; ++i) {
      if (allowed(p, r, i)) order[n++] = i;
    }
    return n == 0 ? 0 : *std::min_element(order, order + n, Better{raw});
  }
  std::sort(order, order + n, Better{x});
  if (r.temperature == 0.0f) return order[0];

  n = keep(r, x, order, n, weights);
  std::sort(order, order + n);  // the draw goes by ascending id
  uint64_t total = 0;
  for (int64_t i = 0; i < n; ++i) total += weights[order[i]];
  // floor(u * total), exactly: u has 24 bits.
  const auto u = static_cast<uint64_t>(sampling_uniform(r.seed, r.choice, r.position) * 0x1p24f);
  const uint64_t target = (total >> 24) * u + ((total & 0xFFFFFF) * u >> 24);
  uint64_t sum = 0;
  int64_t i = 0;
  while (sum + weights[order[i]] <= target) sum += weights[order[i++]];
  return order[i];
}

}  // namespace

void sample(const SampleParams& p, Stream&) {
  const int64_t v = p.logits.cols();
  for (int64_t s = 0; s < p.logits.rows(); ++s) {
    const SamplerRow& r = p.rows[s];
    const float* raw = p.logits.row<float>(s);
    const int32_t token = choose(p, r, raw, v, p.workspace);
    p.tokens.as<int32_t>()[s] = token;
    if (r.num_logprobs < 0) continue;
    check(!p.logprobs.empty(),
          "sample: a row wants log probabilities, but there is no output for them");
    write_logprobs(
        raw, v, token, r.num_logprobs, s, {p.logprobs, p.ranks, p.top_ids, p.top_logprobs});
  }
}

size_t sample_workspace_bytes(int64_t, int64_t vocab, const Stream&) {
  return static_cast<size_t>(vocab) * (sizeof(uint64_t) + sizeof(float) + sizeof(int32_t));
}

void token_logprobs(const TokenLogprobsParams& p, Stream&) {
  const int64_t v = p.logits.cols();
  for (int64_t s = 0; s < p.logits.rows(); ++s) {
    write_logprobs(p.logits.row<float>(s),
                   v,
                   p.targets.as<int32_t>()[s],
                   p.num_top,
                   s,
                   {p.logprobs, p.ranks, p.top_ids, p.top_logprobs});
  }
}

}  // namespace flotilla::reference
