// One vector of floats under one name for every instruction set: what the sources of this folder
// are written in. They are compiled once per instruction set, with -m flags that the rest of the
// program must not see.
//
// Nothing here or in a source that includes it may be emitted as a symbol that another object could
// also have: the linker keeps one copy of an inline function, and a copy with AVX-512 code must not
// end up in a program on an older CPU. So these sources include no header of the project but
// isa_kernels.h (plain structs) and none of the C++ library, every function is in an anonymous
// namespace or always inlined, and a test looks for weak symbols in the objects.
//
// Sums: -ffp-contract=off, so that a multiply-add is one where `fma` is written and nowhere else,
// whatever gets inlined where.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FLOTILLA_INLINE static inline __attribute__((always_inline))

namespace flotilla::FLOTILLA_ISA {
namespace {

#if defined(__AVX512F__)

using Floats = __m512;
using Dwords = __m512i;
constexpr int kLanes = 16;

FLOTILLA_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

FLOTILLA_INLINE Floats zero() { return _mm512_setzero_ps(); }
FLOTILLA_INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
FLOTILLA_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
FLOTILLA_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
FLOTILLA_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
FLOTILLA_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
FLOTILLA_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
FLOTILLA_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
// If a lane of either is NaN, the lane of b.
FLOTILLA_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
FLOTILLA_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
// a · b + c, rounded once.
FLOTILLA_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
FLOTILLA_INLINE Floats round_to_int(Floats v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// v · 2^n for whole n; below the normal range it rounds to a subnormal.
FLOTILLA_INLINE Floats scale_by_power(Floats v, Floats n) { return _mm512_scalef_ps(v, n); }
// One bit a lane.
FLOTILLA_INLINE uint32_t lanes_equal(Floats a, Floats b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
FLOTILLA_INLINE uint32_t lanes_greater(Floats a, Floats b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
FLOTILLA_INLINE uint32_t lanes_at_least(Floats a, Floats b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
// The lanes of v whose bit is set, and those of `other`.
FLOTILLA_INLINE Floats select(uint32_t bits, Floats v, Floats other) {
  return _mm512_mask_blend_ps(static_cast<__mmask16>(bits), other, v);
}

// The first n lanes (0 <= n <= kLanes); the others read nothing and are zero.
FLOTILLA_INLINE Floats load_first(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
FLOTILLA_INLINE void store_first(float* p, Floats v, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

FLOTILLA_INLINE Dwords load_dwords(const void* p) { return _mm512_loadu_si512(p); }
FLOTILLA_INLINE void store_dwords(void* p, Dwords v) { _mm512_storeu_si512(p, v); }
FLOTILLA_INLINE Dwords broadcast_dword(uint32_t x) {
  return _mm512_set1_epi32(static_cast<int>(x));
}
FLOTILLA_INLINE Dwords round_to_dwords(Floats v) { return _mm512_cvtps_epi32(v); }
FLOTILLA_INLINE Dwords keep_lanes(uint32_t bits, Dwords v) {
  return _mm512_maskz_mov_epi32(static_cast<__mmask16>(bits), v);
}
// A dword holds two bf16: the one at the lower address, and the other.
FLOTILLA_INLINE Floats even_bf16(Dwords v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
FLOTILLA_INLINE Floats odd_bf16(Dwords v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

FLOTILLA_INLINE Floats from_bf16(__m256i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
FLOTILLA_INLINE Floats load_bf16(const uint16_t* p) {
  return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
FLOTILLA_INLINE Floats load_bf16_first(const uint16_t* p, int64_t n) {
  return from_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
FLOTILLA_INLINE Floats load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
FLOTILLA_INLINE Floats load_f16_first(const uint16_t* p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
// To nearest, ties to even; NaN stays NaN. As f32_to_bf16: not by vcvtneps2bf16, which flushes
// subnormals.
FLOTILLA_INLINE __m256i to_bf16(Floats v) {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, quiet), 16));
}
FLOTILLA_INLINE void store_bf16(uint16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v));
}
FLOTILLA_INLINE void store_bf16_first(uint16_t* p, Floats v, int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), to_bf16(v));
}

FLOTILLA_INLINE float sum_lanes(Floats v) {
  const __m256 low = _mm512_castps512_ps256(v);
  const __m256 half = _mm256_add_ps(low, _mm512_extractf32x8_ps(v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
FLOTILLA_INLINE float max_lanes(Floats v) {
  const __m256 low = _mm512_castps512_ps256(v);
  const __m256 half = _mm256_max_ps(low, _mm512_extractf32x8_ps(v, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
// Sums of unsigned dwords, kept as 64-bit numbers.
FLOTILLA_INLINE Dwords add_wide(Dwords sums, Dwords v) {
  const __m512i low = _mm512_and_si512(v, _mm512_set1_epi64(0xFFFFFFFF));
  return _mm512_add_epi64(sums, _mm512_add_epi64(low, _mm512_srli_epi64(v, 32)));
}
FLOTILLA_INLINE uint64_t sum_wide(Dwords sums) {
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(sums));
}

#else  // AVX2

using Floats = __m256;
using Dwords = __m256i;
constexpr int kLanes = 8;

FLOTILLA_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

FLOTILLA_INLINE Floats zero() { return _mm256_setzero_ps(); }
FLOTILLA_INLINE Floats broadcast(float x) { return _mm256_set1_ps(x); }
FLOTILLA_INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
FLOTILLA_INLINE void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
FLOTILLA_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
FLOTILLA_INLINE Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
FLOTILLA_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
FLOTILLA_INLINE Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
FLOTILLA_INLINE Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
FLOTILLA_INLINE Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
FLOTILLA_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
FLOTILLA_INLINE Floats round_to_int(Floats v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
FLOTILLA_INLINE Floats power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
FLOTILLA_INLINE Floats scale_by_power(Floats v, Floats n) {
  // Two factors, since 2^n itself may lie outside of the normal range.
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return mul(mul(v, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
}
FLOTILLA_INLINE uint32_t bits(Floats mask) {
  return static_cast<uint32_t>(_mm256_movemask_ps(mask));
}
FLOTILLA_INLINE uint32_t lanes_equal(Floats a, Floats b) {
  return bits(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
FLOTILLA_INLINE uint32_t lanes_greater(Floats a, Floats b) {
  return bits(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
FLOTILLA_INLINE uint32_t lanes_at_least(Floats a, Floats b) {
  return bits(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}
FLOTILLA_INLINE __m256i lanes_of(uint32_t set) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(set)), bit), bit);
}
FLOTILLA_INLINE Floats select(uint32_t set, Floats v, Floats other) {
  return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(lanes_of(set)));
}

FLOTILLA_INLINE Floats load_first(const float* p, int64_t n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
FLOTILLA_INLINE void store_first(float* p, Floats v, int64_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), v);
}

FLOTILLA_INLINE Dwords load_dwords(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
FLOTILLA_INLINE void store_dwords(void* p, Dwords v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}
FLOTILLA_INLINE Dwords broadcast_dword(uint32_t x) {
  return _mm256_set1_epi32(static_cast<int>(x));
}
FLOTILLA_INLINE Dwords round_to_dwords(Floats v) { return _mm256_cvtps_epi32(v); }
FLOTILLA_INLINE Dwords keep_lanes(uint32_t set, Dwords v) {
  return _mm256_and_si256(lanes_of(set), v);
}
FLOTILLA_INLINE Floats even_bf16(Dwords v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
FLOTILLA_INLINE Floats odd_bf16(Dwords v) {
  return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
}

FLOTILLA_INLINE __m128i load_halves_first(const uint16_t* p, int64_t n) {
  alignas(16) uint16_t lanes[kLanes] = {};
  memcpy(lanes, p, static_cast<size_t>(n) * sizeof(uint16_t));
  return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
}
FLOTILLA_INLINE Floats from_bf16(__m128i v) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
FLOTILLA_INLINE Floats load_bf16(const uint16_t* p) {
  return from_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
FLOTILLA_INLINE Floats load_bf16_first(const uint16_t* p, int64_t n) {
  return from_bf16(load_halves_first(p, n));
}
FLOTILLA_INLINE Floats load_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
FLOTILLA_INLINE Floats load_f16_first(const uint16_t* p, int64_t n) {
  return _mm256_cvtph_ps(load_halves_first(p, n));
}
FLOTILLA_INLINE __m128i to_bf16(Floats v) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i halves = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}
FLOTILLA_INLINE void store_bf16(uint16_t* p, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(v));
}
FLOTILLA_INLINE void store_bf16_first(uint16_t* p, Floats v, int64_t n) {
  alignas(16) uint16_t lanes[kLanes];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), to_bf16(v));
  memcpy(p, lanes, static_cast<size_t>(n) * sizeof(uint16_t));
}

FLOTILLA_INLINE float sum_lanes(Floats v) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
FLOTILLA_INLINE float max_lanes(Floats v) {
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
FLOTILLA_INLINE Dwords add_wide(Dwords sums, Dwords v) {
  const __m256i low = _mm256_and_si256(v, _mm256_set1_epi64x(0xFFFFFFFF));
  return _mm256_add_epi64(sums, _mm256_add_epi64(low, _mm256_srli_epi64(v, 32)));
}
FLOTILLA_INLINE uint64_t sum_wide(Dwords sums) {
  const __m128i q = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(q)) +
         static_cast<uint64_t>(_mm_extract_epi64(q, 1));
}

#endif

// e^v to about 1 ulp; exactly 1 at 0, 0 below -104 and at -inf, NaN for NaN.
FLOTILLA_INLINE Floats exp(Floats v) {
  const Floats x = min(broadcast(89.0f), max(broadcast(-104.0f), v));
  const Floats n = round_to_int(mul(x, broadcast(1.44269504f)));
  // x - n · ln 2, in two parts.
  Floats r = fma(n, broadcast(-0.693145752f), x);
  r = fma(n, broadcast(-1.42860682e-6f), r);
  // Taylor's coefficients, nudged for |r| <= ln 2 / 2 (Cephes expf).
  Floats p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(mul(r, r), p, add(r, broadcast(1.0f)));
  return scale_by_power(p, n);
}

}  // namespace
}  // namespace flotilla::FLOTILLA_ISA
