// Passes over one row of logits.
#include "kernels/cpu/isa/ops.h"
#include "kernels/cpu/isa/simd.h"

namespace flotilla::FLOTILLA_ISA {
namespace {

constexpr float kLowest = -__builtin_inff();
constexpr float kWeightOne = 0x1p30f;

// Up to kLanes logits; NaN, and lanes behind the end, are -inf.
FLOTILLA_INLINE Floats read_logits(const float* x, int64_t left) {
  if (left >= kLanes) {
    const Floats v = load(x);
    return select(lanes_equal(v, v), v, broadcast(kLowest));
  }
  const Floats v = load_first(x, left);
  return select(lanes_equal(v, v) & ((1u << left) - 1), v, broadcast(kLowest));
}

// Lanes that exist.
FLOTILLA_INLINE uint32_t there(int64_t left) {
  return left >= kLanes ? (1u << kLanes) - 1 : (1u << left) - 1;
}

// e^((x - largest) / temperature), exactly 1 for the largest, infinities included.
FLOTILLA_INLINE Floats relative(Floats x, Floats largest, Floats temperature) {
  const Floats e = exp(div(sub(x, largest), temperature));
  return select(lanes_equal(x, largest), broadcast(1.0f), e);
}

struct Drawing {
  Floats largest, temperature, min_weight, floor;
  FLOTILLA_INLINE Drawing of(const DrawTask& t) {
    return {broadcast(t.largest),
            broadcast(t.temperature),
            broadcast(t.min_weight),
            broadcast(t.floor)};
  }
};

// The weights of the logits x, whose first has the given id.
FLOTILLA_INLINE Dwords
weights_at(const DrawTask& t, const Drawing& d, Floats x, int64_t id, uint32_t exist) {
  const Floats e = relative(x, d.largest, d.temperature);
  // Lanes whose id is at most floor_id.
  const int64_t before = t.floor_id - id + 1;
  const uint32_t early = before >= kLanes ? ~0u : before <= 0 ? 0u : (1u << before) - 1;
  const uint32_t above = lanes_greater(x, d.floor) | (lanes_equal(x, d.floor) & early);
  const uint32_t in = above & lanes_at_least(e, d.min_weight) & exist;
  return keep_lanes(in, round_to_dwords(mul(e, broadcast(kWeightOne))));
}

uint64_t sum_range(const DrawTask& t, const Drawing& d, int64_t begin, int64_t end) {
  Dwords sums = broadcast_dword(0);
  for (int64_t i = begin; i < end; i += kLanes) {
    sums = add_wide(sums, weights_at(t, d, read_logits(t.x + i, end - i), i, there(end - i)));
  }
  return sum_wide(sums);
}

}  // namespace

void clean_logits(const float* x, const uint32_t* allowed, float* y, int64_t v) {
  for (int64_t i = 0; i < v; i += kLanes) {
    Floats logits = read_logits(x + i, v - i);
    if (allowed) logits = select(allowed[i / 32] >> i % 32, logits, broadcast(kLowest));
    if (v - i >= kLanes) {
      store(y + i, logits);
    } else {
      store_first(y + i, logits, v - i);
    }
  }
}

float largest(const float* x, int64_t v) {
  Floats best[4] = {broadcast(kLowest), broadcast(kLowest), broadcast(kLowest), broadcast(kLowest)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= v; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) best[j] = max(load(x + i + j * kLanes), best[j]);
  }
  for (; i < v; i += kLanes) best[0] = max(read_logits(x + i, v - i), best[0]);
  return max_lanes(max(max(best[0], best[1]), max(best[2], best[3])));
}

int64_t find(const float* x, int64_t v, float value) {
  for (int64_t i = 0; i < v; i += kLanes) {
    const Floats here = v - i >= kLanes ? load(x + i) : load_first(x + i, v - i);
    const uint32_t equal = lanes_equal(here, broadcast(value)) & there(v - i);
    if (equal) return i + __builtin_ctz(equal);
  }
  return v;
}

double sum_exp(const float* x, int64_t v, float largest) {
  constexpr int64_t kChunk = 4096;
  const Floats top = broadcast(largest);
  double total = 0.0;
  for (int64_t begin = 0; begin < v; begin += kChunk) {
    const int64_t end = v - begin < kChunk ? v : begin + kChunk;
    Floats sums = zero();
    for (int64_t i = begin; i < end; i += kLanes) {
      const Floats here = read_logits(x + i, end - i);
      const Floats e = select(lanes_equal(here, top), broadcast(1.0f), exp(sub(here, top)));
      sums = add(sums, select(there(end - i), e, zero()));
    }
    total += static_cast<double>(sum_lanes(sums));
  }
  return total;
}

int64_t count_better(const float* x, int64_t v, float value, int64_t id) {
  int64_t count = 0;
  for (int64_t i = 0; i < v; i += kLanes) {
    const Floats here = read_logits(x + i, v - i);
    uint32_t better = lanes_greater(here, broadcast(value));
    if (i < id) better |= lanes_equal(here, broadcast(value)) & there(id - i);
    count += __builtin_popcount(better & there(v - i));
  }
  return count;
}

void best(const float* x, int64_t v, int64_t n, int32_t* ids, float* values) {
  int64_t kept = 0;
  if (n == 0) return;
  for (int64_t i = 0; i < v; i += kLanes) {
    const Floats here = read_logits(x + i, v - i);
    uint32_t candidates = there(v - i);
    if (kept == n) candidates &= lanes_greater(here, broadcast(values[n - 1]));
    if (!candidates) continue;
    float lanes[kLanes];
    store(lanes, here);
    for (; candidates; candidates &= candidates - 1) {
      const int lane = __builtin_ctz(candidates);
      if (kept == n && !(lanes[lane] > values[n - 1])) continue;
      int64_t at = kept < n ? kept++ : n - 1;
      for (; at > 0 && lanes[lane] > values[at - 1]; --at) {
        values[at] = values[at - 1];
        ids[at] = ids[at - 1];
      }
      values[at] = lanes[lane];
      ids[at] = static_cast<int32_t>(i + lane);
    }
  }
}

int64_t collect_above(const float* x, int64_t v, float floor, int32_t* ids) {
  int64_t n = 0;
  for (int64_t i = 0; i < v; i += kLanes) {
    uint32_t above = lanes_greater(read_logits(x + i, v - i), broadcast(floor));
    for (; above; above &= above - 1) ids[n++] = static_cast<int32_t>(i + __builtin_ctz(above));
  }
  return n;
}

uint64_t sum_weights(const DrawTask& t) { return sum_range(t, Drawing::of(t), 0, t.v); }

int64_t draw(const DrawTask& t, uint64_t target) {
  constexpr int64_t kChunk = 2048;
  const Drawing d = Drawing::of(t);
  uint64_t sum = 0;
  int64_t begin = 0;
  for (; begin + kChunk < t.v; begin += kChunk) {
    const uint64_t chunk = sum_range(t, d, begin, begin + kChunk);
    if (sum + chunk > target) break;
    sum += chunk;
  }
  for (int64_t i = begin; i < t.v; i += kLanes) {
    uint32_t weights[kLanes];
    store_dwords(weights, weights_at(t, d, read_logits(t.x + i, t.v - i), i, there(t.v - i)));
    for (int lane = 0; lane < kLanes; ++lane) {
      sum += weights[lane];
      if (sum > target) return i + lane;
    }
  }
  return 0;
}

void weights_of(const DrawTask& t, const int32_t* ids, int64_t n, uint32_t* weights) {
  const Drawing d = Drawing::of(t);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i < kLanes ? n - i : kLanes;
    float x[kLanes];
    uint32_t in[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      x[lane] = lane < left ? t.x[ids[i + lane]] : kLowest;
    }
    // All ids count as early: the caller asks before there is a floor among equals.
    store_dwords(in, weights_at(t, d, load(x), t.floor_id - kLanes, there(left)));
    memcpy(weights + i, in, static_cast<size_t>(left) * sizeof(uint32_t));
  }
}

}  // namespace flotilla::FLOTILLA_ISA
