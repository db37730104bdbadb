// Sampling without a sort: the boundary of top_k and top_p is found by selection among the best
// tokens, then one pass draws. Weights of the draw are fixed-point numbers (2^30 is the best
// token's), so that their sums are exact in any order.
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_stream.h"

namespace flotilla::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct Candidate {
  float x;
  int32_t id;
  uint32_t weight;

  bool operator<(const Candidate& other) const {  // better: larger, among equals the lower id
    return x > other.x || (x == other.x && id < other.id);
  }
};

// Scratch of one thread: [V] each.
struct Scratch {
  float* x;
  int32_t* ids;
  uint32_t* weights;
  Candidate* candidates;

  static constexpr int64_t kBytesPerToken = 4 + 4 + 4 + sizeof(Candidate);
  static int64_t bytes(int64_t v) { return (v + 15) / 16 * 16 * kBytesPerToken; }
  Scratch(void* workspace, int64_t v, int thread) {
    const int64_t n = (v + 15) / 16 * 16;
    x = reinterpret_cast<float*>(static_cast<char*>(workspace) + thread * bytes(v));
    ids = reinterpret_cast<int32_t*>(x + n);
    weights = reinterpret_cast<uint32_t*>(ids + n);
    candidates = reinterpret_cast<Candidate*>(weights + n);
  }
};

struct LogprobOutputs {
  const TensorView &logprobs, &ranks, &top_ids, &top_logprobs;
};

void write_logprobs(const IsaKernels& isa,
                    const float* logits,
                    int64_t v,
                    int32_t target,
                    int64_t num_top,
                    int64_t row,
                    const LogprobOutputs& out) {
  check(target >= 0 && target < v, "log probabilities: a token lies outside of the vocabulary");
  const float largest = isa.largest(logits, v);
  const double log_sum = std::log(isa.sum_exp(logits, v, largest));
  const auto logprob = [&](float x) {
    const double distance = x == largest ? 0.0 : static_cast<double>(x) - largest;
    return static_cast<float>(distance - log_sum);
  };
  const float x = std::isnan(logits[target]) ? kLowest : logits[target];
  out.logprobs.as<float>()[row] = logprob(x);
  out.ranks.as<int32_t>()[row] = static_cast<int32_t>(isa.count_better(logits, v, x, target)) + 1;
  if (num_top == 0) return;
  check(!out.top_ids.empty() && num_top <= out.top_ids.cols(),
        "log probabilities: more are asked for than the outputs hold");
  int32_t* const ids = out.top_ids.row<int32_t>(row);
  float* const values = out.top_logprobs.row<float>(row);
  const int64_t there = std::min(num_top, v);
  isa.best(logits, v, there, ids, values);
  for (int64_t i = 0; i < there; ++i) values[i] = logprob(values[i]);
  for (int64_t i = there; i < num_top; ++i) {
    ids[i] = -1;
    values[i] = kLowest;
  }
}

class Sampler {
 public:
  Sampler(const SampleParams& p,
          const SamplerRow& r,
          const float* raw,
          const IsaKernels& isa,
          const Scratch& scratch)
      : p_(p), r_(r), raw_(raw), v_(p.logits.cols()), isa_(isa), s_(scratch) {}

  int32_t choose() {
    isa_.clean_logits(raw_, mask(), s_.x, v_);
    adjust();
    const float largest = isa_.largest(s_.x, v_);
    if (largest == kLowest) return best_raw();
    if (r_.temperature == 0.0f) return static_cast<int32_t>(isa_.find(s_.x, v_, largest));

    DrawTask draw{.x = s_.x,
                  .v = v_,
                  .largest = largest,
                  .temperature = r_.temperature,
                  .min_weight = r_.min_p,
                  .floor = kLowest,
                  .floor_id = 0};
    if ((r_.top_k > 0 && r_.top_k < v_) || r_.top_p < 1.0f) limit(draw);
    const uint64_t total = isa_.sum_weights(draw);
    // floor(u · total), exactly: u has 24 bits.
    const auto u =
        static_cast<uint64_t>(sampling_uniform(r_.seed, r_.choice, r_.position) * 0x1p24f);
    return static_cast<int32_t>(
        isa_.draw(draw, (total >> 24) * u + ((total & 0xFFFFFF) * u >> 24)));
  }

 private:
  const uint32_t* mask() const {
    return r_.mask_row < 0 ? nullptr : p_.allowed.row<const uint32_t>(r_.mask_row);
  }

  float& logit(int32_t token) const {
    check(token >= 0 && token < v_,
          "sample: a token of a row's lists lies outside of the vocabulary");
    return s_.x[token];
  }

  // Bias, then the penalties as vLLM orders them: repetition, frequency, presence. Banned ones
  // last: they stay out.
  void adjust() const {
    for (int32_t i = r_.bias_begin; i < r_.bias_end; ++i) {
      float& x = logit(p_.bias[i].token);
      if (x > kLowest) x += p_.bias[i].bias;
    }
    for (int32_t i = r_.seen_begin; i < r_.seen_end; ++i) {
      const SeenToken seen = p_.seen[i];
      float& x = logit(seen.token);
      x = x > 0.0f ? x / r_.repetition_penalty : x * r_.repetition_penalty;
      if (seen.produced > 0) {
        x -= r_.frequency_penalty * static_cast<float>(seen.produced);
        x -= r_.presence_penalty;
      }
    }
    for (int32_t i = r_.banned_begin; i < r_.banned_end; ++i) logit(p_.banned[i]) = kLowest;
  }

  // Nothing can be drawn: the highest raw logit among the tokens not banned, 0 if there is none.
  int32_t best_raw() const {
    isa_.clean_logits(raw_, nullptr, s_.x, v_);
    const float out = std::numeric_limits<float>::quiet_NaN();
    if (const uint32_t* const allowed = mask()) {
      for (int64_t i = 0; i < v_; ++i) {
        if ((allowed[i / 32] >> i % 32 & 1) == 0) s_.x[i] = out;
      }
    }
    for (int32_t i = r_.banned_begin; i < r_.banned_end; ++i) logit(p_.banned[i]) = out;
    const int64_t best = isa_.find(s_.x, v_, isa_.largest(s_.x, v_));
    return best == v_ ? 0 : static_cast<int32_t>(best);
  }

  // Raises the floor of the draw to the last token that top_k and top_p keep.
  void limit(DrawTask& draw) const {
    const bool by_count = r_.top_k > 0 && r_.top_k < v_;
    uint64_t total = by_count ? 0 : isa_.sum_weights(draw);
    // Nearly always few tokens, near the best, decide; farther ones are looked at only if these do
    // not.
    for (const float reach : {6.0f, 12.0f, std::numeric_limits<float>::infinity()}) {
      const int64_t n = collect(draw, draw.largest - reach * r_.temperature);
      Candidate* const first = s_.candidates;
      Candidate* end = first + n;
      const bool last = reach == std::numeric_limits<float>::infinity();
      if (by_count) {
        if (n < r_.top_k && !last) continue;
        if (n > r_.top_k) {
          end = first + r_.top_k;
          std::nth_element(first, end - 1, first + n);
        }
        total = weigh(first, end);
      }
      if (r_.top_p < 1.0f) {
        const double enough = static_cast<double>(r_.top_p) * static_cast<double>(total);
        if (!by_count && !last && static_cast<double>(weigh(first, end)) < enough) continue;
        end = smallest_prefix(first, end, enough);
      }
      const Candidate& worst = *std::max_element(first, end);
      draw.floor = worst.x;
      draw.floor_id = worst.id;
      return;
    }
  }

  // The tokens above the floor (and the best one in any case, as largest - reach may round to it)
  // become candidates.
  int64_t collect(const DrawTask& draw, float floor) const {
    const int64_t n = isa_.collect_above(s_.x, v_, floor < draw.largest ? floor : kLowest, s_.ids);
    isa_.weights_of(draw, s_.ids, n, s_.weights);
    for (int64_t i = 0; i < n; ++i) {
      s_.candidates[i] = {s_.x[s_.ids[i]], s_.ids[i], s_.weights[i]};
    }
    return n;
  }

  static uint64_t weigh(const Candidate* first, const Candidate* end) {
    uint64_t sum = 0;
    for (; first != end; ++first) sum += first->weight;
    return sum;
  }

  // Reorders the candidates so that [first, result) are the fewest best ones, at least one, that
  // weigh enough.
  static Candidate* smallest_prefix(Candidate* first, Candidate* end, double enough) {
    uint64_t before = 0;  // the weight of those known to be in
    while (end - first > 1) {
      Candidate* const middle = first + (end - first) / 2;
      std::nth_element(first, middle, end);
      const uint64_t with_half = before + weigh(first, middle);
      if (static_cast<double>(with_half) >= enough) {
        end = middle;
      } else {
        first = middle;
        before = with_half;
      }
    }
    return end;
  }

  const SampleParams& p_;
  const SamplerRow& r_;
  const float* const raw_;
  const int64_t v_;
  const IsaKernels& isa_;
  const Scratch& s_;
};

}  // namespace

void sample(const SampleParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int64_t v = p.logits.cols();
  s.parallel_for(p.logits.rows(), [&](int64_t i, int thread) {
    const SamplerRow& r = p.rows[i];
    const float* const raw = p.logits.row<float>(i);
    const Scratch scratch(p.workspace, v, thread);
    const int32_t token = Sampler(p, r, raw, s.isa(), scratch).choose();
    p.tokens.as<int32_t>()[i] = token;
    if (r.num_logprobs < 0) return;
    check(!p.logprobs.empty(),
          "sample: a row wants log probabilities, but there is no output for them");
    write_logprobs(s.isa(),
                   raw,
                   v,
                   token,
                   r.num_logprobs,
                   i,
                   {p.logprobs, p.ranks, p.top_ids, p.top_logprobs});
  });
}

size_t sample_workspace_bytes(int64_t, int64_t vocab, const Stream& stream) {
  return static_cast<size_t>(Scratch::bytes(vocab) * cpu_stream(stream).num_threads());
}

void token_logprobs(const TokenLogprobsParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  s.parallel_for(p.logits.rows(), [&](int64_t i, int) {
    write_logprobs(s.isa(),
                   p.logits.row<float>(i),
                   p.logits.cols(),
                   p.targets.as<int32_t>()[i],
                   p.num_top,
                   i,
                   {p.logprobs, p.ranks, p.top_ids, p.top_logprobs});
  });
}

}  // namespace flotilla::cpu
