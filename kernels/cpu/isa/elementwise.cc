// Norms, activations, conversions, rotations: one row at a time.
#include "kernels/cpu/isa/ops.h"
#include "kernels/cpu/isa/simd.h"

namespace flotilla::FLOTILLA_ISA {
namespace {

constexpr int64_t kMaxHeadDim = 256;

FLOTILLA_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The first n <= kLanes elements.
FLOTILLA_INLINE Floats read_floats(const float* p, int64_t n) {
  return n == kLanes ? load(p) : load_first(p, n);
}
FLOTILLA_INLINE void write_floats(float* p, Floats v, int64_t n) {
  if (n == kLanes) {
    store(p, v);
  } else {
    store_first(p, v, n);
  }
}
// Elements [i, i + n) of a row of results.
FLOTILLA_INLINE void write_result(void* y, Stored type, int64_t i, Floats v, int64_t n) {
  if (type == Stored::kF32) {
    write_floats(static_cast<float*>(y) + i, v, n);
  } else if (n == kLanes) {
    store_bf16(static_cast<uint16_t*>(y) + i, v);
  } else {
    store_bf16_first(static_cast<uint16_t*>(y) + i, v, n);
  }
}

// 1 / sqrt(Σ v² / c + eps), with Σ in four chains of vectors: an order that depends on c only.
FLOTILLA_INLINE Floats inverse_rms(const Floats (&squares)[4], int64_t c, float eps) {
  const float sum = sum_lanes(add(add(squares[0], squares[1]), add(squares[2], squares[3])));
  const float mean = sum / static_cast<float>(c);
  return broadcast(1.0f / __builtin_sqrtf(mean + eps));
}

// Multiplies `head` by its inverse RMS and by w.
void normalise_head(float* head, const float* w, int64_t d, float eps) {
  Floats squares[4] = {zero(), zero(), zero(), zero()};
  for (int64_t i = 0; i < d; i += kLanes) {
    const Floats v = read_floats(head + i, smaller(d - i, kLanes));
    const int64_t chain = i / kLanes % 4;
    squares[chain] = fma(v, v, squares[chain]);
  }
  const Floats scale = inverse_rms(squares, d, eps);
  for (int64_t i = 0; i < d; i += kLanes) {
    const int64_t n = smaller(d - i, kLanes);
    const Floats v = mul(mul(read_floats(head + i, n), scale), read_floats(w + i, n));
    write_floats(head + i, v, n);
  }
}

void rotate_head(float* head, const RopeTask& t) {
  const int64_t half = t.head_dim / 2;
  if (t.interleaved) {
    for (int64_t j = 0; j < half; ++j) {
      const float a = head[2 * j], b = head[2 * j + 1];
      head[2 * j] = a * t.cos[j] - b * t.sin[j];
      head[2 * j + 1] = b * t.cos[j] + a * t.sin[j];
    }
    return;
  }
  for (int64_t j = 0; j < half; j += kLanes) {
    const int64_t n = smaller(half - j, kLanes);
    const Floats a = read_floats(head + j, n), b = read_floats(head + half + j, n);
    const Floats c = read_floats(t.cos + j, n), s = read_floats(t.sin + j, n);
    write_floats(head + j, sub(mul(a, c), mul(b, s)), n);
    write_floats(head + half + j, add(mul(b, c), mul(a, s)), n);
  }
}

void write_head(const float* head, int64_t d, void* y, Stored type) {
  for (int64_t i = 0; i < d; i += kLanes) {
    const int64_t n = smaller(d - i, kLanes);
    write_result(y, type, i, read_floats(head + i, n), n);
  }
}

}  // namespace

void rms_norm_row(
    const float* x, float* residual, const float* w, float eps, int64_t c, void* y, Stored y_type) {
  Floats squares[4] = {zero(), zero(), zero(), zero()};
  for (int64_t i = 0; i < c; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; ++chain) {
      const int64_t at = i + chain * kLanes;
      if (at >= c) break;
      const int64_t n = smaller(c - at, kLanes);
      Floats v = read_floats(x + at, n);
      if (residual) {
        v = add(read_floats(residual + at, n), v);
        write_floats(residual + at, v, n);
      }
      squares[chain] = fma(v, v, squares[chain]);
    }
  }
  const Floats scale = inverse_rms(squares, c, eps);
  const float* v = residual ? residual : x;
  for (int64_t i = 0; i < c; i += kLanes) {
    const int64_t n = smaller(c - i, kLanes);
    write_result(y, y_type, i, mul(mul(read_floats(v + i, n), scale), read_floats(w + i, n)), n);
  }
}

void swiglu_row(const float* gate_up, int64_t width, void* y, Stored y_type) {
  const float* up = gate_up + width;
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t n = smaller(width - i, kLanes);
    const Floats z = read_floats(gate_up + i, n);
    const Floats silu = div(z, add(broadcast(1.0f), exp(sub(zero(), z))));
    write_result(y, y_type, i, mul(silu, read_floats(up + i, n)), n);
  }
}

void widen_row(const void* x, Stored x_type, float* y, int64_t n) {
  if (x_type == Stored::kF32) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const auto* halves = static_cast<const uint16_t*>(x);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    if (left >= kLanes) {
      store(y + i, x_type == Stored::kBf16 ? load_bf16(halves + i) : load_f16(halves + i));
    } else {
      store_first(y + i,
                  x_type == Stored::kBf16 ? load_bf16_first(halves + i, left)
                                          : load_f16_first(halves + i, left),
                  left);
    }
  }
}

void round_row(const float* x, uint16_t* y, int64_t n) { write_head(x, n, y, Stored::kBf16); }

void rope_token(const RopeTask& t) {
  alignas(64) float head[kMaxHeadDim];
  const int64_t d = t.head_dim;
  const size_t head_bytes = static_cast<size_t>(d) * sizeof(float);
  const int64_t q_head_bytes = d * (t.q_type == Stored::kF32 ? 4 : 2);
  for (int64_t h = 0; h < t.heads; ++h) {
    memcpy(head, t.qkv + h * d, head_bytes);
    if (t.q_norm) normalise_head(head, t.q_norm, d, t.eps);
    rotate_head(head, t);
    write_head(head, d, t.q + h * q_head_bytes, t.q_type);
  }
  if (!t.k) return;
  for (int64_t h = 0; h < t.kv_heads; ++h) {
    memcpy(head, t.qkv + (t.heads + h) * d, head_bytes);
    if (t.k_norm) normalise_head(head, t.k_norm, d, t.eps);
    rotate_head(head, t);
    write_head(head, d, t.k + h * t.kv_head_stride, t.cache_type);
    write_head(t.qkv + (t.heads + t.kv_heads + h) * d, d, t.v + h * t.kv_head_stride, t.cache_type);
  }
}

}  // namespace flotilla::FLOTILLA_ISA
