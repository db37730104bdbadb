// Attention over the paged cache. Keys are taken in tiles at fixed positions; the lanes of a vector
// are keys for the scores and dimensions for the output, and each of both is one chain of
// multiply-adds (over dimensions, over keys). So a row's result does not depend on which rows it is
// computed with. Source: arXiv:2205.14135 (online softmax).
#include "kernels/cpu/isa/ops.h"
#include "kernels/cpu/isa/simd.h"

namespace flotilla::FLOTILLA_ISA {
namespace {

#if defined(__AVX512BF16__)
constexpr bool kPairProducts = true;  // BF16 queries with BF16 keys by vdpbf16ps
#else
constexpr bool kPairProducts = false;
#endif
constexpr int kVectors = 4;                  // vectors of sums beside each other
constexpr int kRows = kLanes == 16 ? 6 : 3;  // rows of them that fit into the registers
constexpr int64_t kWidth = kVectors * kLanes;
constexpr float kLowest = -__builtin_inff();

FLOTILLA_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
FLOTILLA_INLINE int64_t padded(int64_t head_dim) { return (head_dim + 63) / 64 * 64; }

// State of the query vectors of a task over one split, or over all splits so far.
struct State {
  float* sums;     // [vectors][padded head_dim]: Σ weight · V
  float* largest;  // [vectors]: of the scores
  float* total;    // [vectors]: Σ weight
};

// Where the keys and values of one tile lie in the cache. Those that do not exist yet point to
// zeros: slots behind a context may never have been written, and are not read.
struct Tokens {
  const char* keys[kTile];
  const char* values[kTile];
};

// One tile as the query vectors use it.
struct Tile {
  int64_t begin;  // position of the first key
  const float*
      k;  // transposed: [units][kTile], a unit is a dimension, or a pair of dimensions as BF16
  // Values of the keys that exist: widened, [kTile][padded head_dim], or nullptr: taken from the
  // cache as they are, which is worth it for few query vectors.
  const float* v;
  const Tokens* tokens;
  const Tokens* next;  // to be asked for meanwhile
};

struct Scratch {
  const char** queries;  // [vectors]
  float* q;              // [vectors][head_dim] F32, when they have to be converted
  State split, all;
  float* k;
  float* v;
  int64_t bytes = 0;

  // Only counts if base is nullptr.
  Scratch(char* base, int64_t vectors, int64_t head_dim) {
    const auto take = [&](int64_t n) {
      char* const p = base ? base + bytes : nullptr;
      bytes += (n * 4 + 63) / 64 * 64;
      return reinterpret_cast<float*>(p);
    };
    queries = reinterpret_cast<const char**>(take(2 * vectors));
    q = take(vectors * head_dim);
    split.sums = take(vectors * padded(head_dim));
    split.largest = take(vectors);
    split.total = take(vectors);
    all.sums = take(vectors * padded(head_dim));
    all.largest = take(vectors);
    all.total = take(vectors);
    k = take(head_dim * kTile);
    v = take(kTile * padded(head_dim));
  }
};

int64_t vectors_of(int64_t group) { return group > kMaxQueryVectors ? group : kMaxQueryVectors; }

constexpr int64_t kMaxTokenBytes = 256 * 4;
alignas(64) constexpr char kZeros[kMaxTokenBytes] = {};

// Four dwords each of kLanes tokens → out[i]: dword i of all tokens. Tokens i, i + 4, … share a
// vector, so that what is left to do stays within quarters of 128 bits.
FLOTILLA_INLINE void transpose_quarters(const char* const* tokens,
                                        int64_t offset,
                                        Dwords (&out)[4]) {
  __m128i quarters[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    quarters[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tokens[i] + offset));
  }
  Dwords r[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#if defined(__AVX512F__)
    r[i] = _mm512_castsi128_si512(quarters[i]);
    r[i] = _mm512_inserti32x4(r[i], quarters[i + 4], 1);
    r[i] = _mm512_inserti32x4(r[i], quarters[i + 8], 2);
    r[i] = _mm512_inserti32x4(r[i], quarters[i + 12], 3);
#else
    r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(quarters[i]), quarters[i + 4], 1);
#endif
  }
#if defined(__AVX512F__)
  const Dwords a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
  const Dwords c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
#else
  const Dwords a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]);
  const Dwords c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
  out[0] = _mm256_unpacklo_epi64(a, c);
  out[1] = _mm256_unpackhi_epi64(a, c);
  out[2] = _mm256_unpacklo_epi64(b, d);
  out[3] = _mm256_unpackhi_epi64(b, d);
#endif
}

// Asks for the lines of some keys, a few at a time: all at once would be more requests than a core
// can have under way.
class KeyRequests {
 public:
  KeyRequests(const char* const* keys, int64_t key_bytes) : keys_(keys), key_bytes_(key_bytes) {}
  FLOTILLA_INLINE void ask(KeyRequests& r, int lines) {
    for (int i = 0; i < lines; ++i) {
      _mm_prefetch(*r.keys_ + r.offset_, _MM_HINT_T1);
      r.offset_ += 64;
      if (r.offset_ >= r.key_bytes_) {
        r.offset_ = 0;
        ++r.keys_;
      }
    }
  }

 private:
  const char* const* keys_;
  const int64_t key_bytes_;
  int64_t offset_ = 0;
};

// Transposes keys of `dwords` dwords each into k[unit][kTile]. Pairs of BF16 are taken apart unless
// `keep_pairs`. Meanwhile asks for the keys `next`, unless that is nullptr.
void transpose_keys(const Tokens& tokens,
                    const Tokens* next,
                    int64_t dwords,
                    bool bf16,
                    bool keep_pairs,
                    float* k) {
  const auto put = [&](int64_t unit, int64_t key, Dwords v) {
    if (!bf16 || keep_pairs) {
      store_dwords(k + unit * kTile + key, v);
    } else {
      store(k + 2 * unit * kTile + key, even_bf16(v));
      store(k + (2 * unit + 1) * kTile + key, odd_bf16(v));
    }
  };
  for (int64_t key = 0; key < kTile; key += kLanes) {
    KeyRequests requests((next ? next->keys : tokens.keys) + key, dwords * 4);
    int64_t d = 0;
    for (; d + 4 <= dwords; d += 4) {
      if (next) KeyRequests::ask(requests, kLanes / 4);
      Dwords out[4];
      transpose_quarters(tokens.keys + key, d * 4, out);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) put(d + i, key, out[i]);
    }
    for (; d < dwords; ++d) {
      uint32_t lanes[kLanes];
      for (int i = 0; i < kLanes; ++i) memcpy(lanes + i, tokens.keys[key + i] + d * 4, 4);
      put(d, key, load_dwords(lanes));
    }
  }
}

// Rows of the right-hand side of multiply(): kVectors vectors from column `d` on.
struct FloatRows {
  const float* at;
  int64_t stride;
  FLOTILLA_INLINE Floats row(const FloatRows& rows, int64_t i, int v) {
    return load(rows.at + i * rows.stride + v * kLanes);
  }
  FLOTILLA_INLINE void ask_for_next(const FloatRows&, int64_t) {}
};
template <bool kBf16>
struct CachedRows {
  const char* const* at;
  const char* const* next;  // asked for meanwhile
  int64_t offset;           // bytes
  static constexpr int64_t kBytes = kWidth * (kBf16 ? 2 : 4);
  FLOTILLA_INLINE Floats row(const CachedRows& rows, int64_t i, int v) {
    const char* const p = rows.at[i] + rows.offset;
    if constexpr (kBf16) {
      return load_bf16(reinterpret_cast<const uint16_t*>(p) + v * kLanes);
    } else {
      return load(reinterpret_cast<const float*>(p) + v * kLanes);
    }
  }
  FLOTILLA_INLINE void ask_for_next(const CachedRows& rows, int64_t i) {
#pragma GCC unroll 4
    for (int64_t b = 0; b < kBytes; b += 64) {
      _mm_prefetch(rows.next[i] + rows.offset + b, _MM_HINT_T1);
    }
  }
};

// sums[r] += Σ_i a[r][i] · b[i], i ascending.
template <int R, typename Rows>
FLOTILLA_INLINE void multiply(const float* const (&a)[R],
                              const Rows& b,
                              int64_t n,
                              Floats (&sums)[R][kVectors]) {
  for (int64_t i = 0; i < n; ++i) {
    Rows::ask_for_next(b, i);
    Floats row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = Rows::row(b, i, v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats x = broadcast(a[r][i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(x, row[v], sums[r][v]);
    }
  }
}

#if defined(__AVX512BF16__)
template <int R>
FLOTILLA_INLINE void multiply_pairs(const char* const (&a)[R],
                                    const float* b,
                                    int64_t n,
                                    Floats (&sums)[R][kVectors]) {
  for (int64_t i = 0; i < n; ++i, b += kTile) {
    Dwords row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = load_dwords(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      uint32_t pair;
      memcpy(&pair, a[r] + 4 * i, sizeof pair);
      const auto x = reinterpret_cast<__m512bh>(broadcast_dword(pair));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, reinterpret_cast<__m512bh>(row[v]));
      }
    }
  }
}
#endif

// scores[r][key] = q[r] · k[key]
template <int R>
FLOTILLA_INLINE void score(const char* const (&q)[R],
                           const Tile& tile,
                           int64_t head_dim,
                           [[maybe_unused]] bool pairs,
                           float (&scores)[kRows][kTile]) {
  for (int64_t key = 0; key < kTile; key += kWidth) {
    Floats sums[R][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = zero();
    }
#if defined(__AVX512BF16__)
    if (pairs) {
      multiply_pairs<R>(q, tile.k + key, head_dim / 2, sums);
    } else
#endif
    {
      const float* a[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) a[r] = reinterpret_cast<const float*>(q[r]);
      multiply(a, FloatRows{tile.k + key, kTile}, head_dim, sums);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(scores[r] + key + v * kLanes, sums[r][v]);
    }
  }
}

// Turns the scores of one row into weights, for its first `visible` keys; returns by what earlier
// sums have to be multiplied.
FLOTILLA_INLINE float soften(
    float (&scores)[kTile], int64_t visible, float scale, float* largest, float* total) {
  Floats x[kTile / kLanes];
  Floats top = broadcast(kLowest);
#pragma GCC unroll 8
  for (int v = 0; v < kTile / kLanes; ++v) {
    x[v] = mul(load(scores + v * kLanes), broadcast(scale));
    const int64_t left = visible - v * kLanes;
    if (left < kLanes) {
      x[v] = select(left <= 0 ? 0u : (1u << left) - 1, x[v], broadcast(kLowest));
    }
    top = max(x[v], top);
  }
  const float tile_largest = max_lanes(top);
  const float now = tile_largest > *largest ? tile_largest : *largest;
  float factor[kLanes];
  store(factor, exp(broadcast(*largest - now)));
  Floats sums = zero();
#pragma GCC unroll 8
  for (int v = 0; v < kTile / kLanes; ++v) {
    const Floats e = exp(sub(x[v], broadcast(now)));
    store(scores + v * kLanes, e);
    sums = add(sums, e);
  }
  *largest = now;
  *total = *total * factor[0] + sum_lanes(sums);
  return factor[0];
}

// sums[r] = sums[r] · factor[r] + Σ weight · V over keys [begin, end)
template <int R>
FLOTILLA_INLINE void add_values(const AttentionTask& t,
                                const float* weights,
                                const float* factors,
                                int64_t begin,
                                int64_t end,
                                const Tile& tile,
                                float* sums_base) {
  const int64_t width = padded(t.head_dim);
  for (int64_t d = 0; d < width; d += kWidth) {
    Floats sums[R][kVectors];
    const float* a[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      a[r] = weights + r * kTile + begin;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = load(sums_base + r * width + d + v * kLanes);
        if (factors) sums[r][v] = mul(sums[r][v], broadcast(factors[r]));
      }
    }
    if (tile.v) {
      multiply(a, FloatRows{tile.v + begin * width + d, width}, end - begin, sums);
    } else if (t.cache_type == Stored::kBf16) {
      const CachedRows<true> rows{tile.tokens->values + begin, tile.next->values + begin, d * 2};
      multiply(a, rows, end - begin, sums);
    } else {
      const CachedRows<false> rows{tile.tokens->values + begin, tile.next->values + begin, d * 4};
      multiply(a, rows, end - begin, sums);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(sums_base + r * width + d + v * kLanes, sums[r][v]);
    }
  }
}

// R query vectors, in order of position, from number m on.
template <int R>
void attend(const AttentionTask& t,
            const char* const* queries,
            int64_t m,
            const Tile& tile,
            bool pairs,
            const State& state) {
  const int64_t width = padded(t.head_dim);
  const char* q[R];
  float scores[kRows][kTile];
  float factors[R];
  int64_t visible[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) q[r] = queries[m + r];
  score<R>(q, tile, t.head_dim, pairs, scores);
  for (int r = 0; r < R; ++r) {
    const int64_t position = t.first_position + (m + r) / t.group;
    visible[r] = smaller(position + 1 - tile.begin, kTile);
    factors[r] = soften(scores[r], visible[r], t.scale, state.largest + m + r, state.total + m + r);
  }
  float* const sums = state.sums + m * width;
  add_values<R>(t, scores[0], factors, 0, visible[0], tile, sums);
  // Later positions see more of the last tile: each goes on alone, over keys that the others must
  // not touch.
  for (int r = 1; r < R; ++r) {
    if (visible[r] > visible[0]) {
      add_values<1>(t, scores[r], nullptr, visible[0], visible[r], tile, sums + r * width);
    }
  }
}

using Attend =
    void (*)(const AttentionTask&, const char* const*, int64_t, const Tile&, bool, const State&);

Attend choose_attend(int64_t rows) {
  switch (rows) {
    case 1:
      return attend<1>;
    case 2:
      return attend<2>;
#if defined(__AVX512F__)
    case 3:
      return attend<3>;
    case 4:
      return attend<4>;
    case 5:
      return attend<5>;
#endif
    default:
      return attend<kRows>;
  }
}

// all = all merged with split, for one query vector.
FLOTILLA_INLINE void merge(float* sums,
                           float* largest,
                           float* total,
                           const float* split_sums,
                           float split_largest,
                           float split_total,
                           int64_t width) {
  const float now = split_largest > *largest ? split_largest : *largest;
  float factors[2][kLanes];
  store(factors[0], exp(broadcast(*largest - now)));
  store(factors[1], exp(broadcast(split_largest - now)));
  const Floats mine = broadcast(factors[0][0]), its = broadcast(factors[1][0]);
  for (int64_t d = 0; d < width; d += kLanes) {
    store(sums + d, fma(load(split_sums + d), its, mul(load(sums + d), mine)));
  }
  *largest = now;
  *total = *total * factors[0][0] + split_total * factors[1][0];
}

void write_output(const float* sums, float total, int64_t head_dim, char* out, Stored type) {
  const Floats divisor = broadcast(total);
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t n = smaller(head_dim - d, kLanes);
    const Floats v = div(load(sums + d), divisor);
    if (type == Stored::kBf16) {
      store_bf16_first(reinterpret_cast<uint16_t*>(out) + d, v, n);
    } else {
      store_first(reinterpret_cast<float*>(out) + d, v, n);
    }
  }
}

void point_to_queries(const AttentionTask& t, int64_t vectors, bool pairs, const Scratch& s) {
  const bool bf16 = t.q_type == Stored::kBf16;
  for (int64_t m = 0; m < vectors; ++m) {
    const char* q = t.q + m / t.group * t.q_stride + m % t.group * t.head_dim * (bf16 ? 2 : 4);
    if (bf16 && !pairs) {
      float* const converted = s.q + m * t.head_dim;
      widen_row(q, Stored::kBf16, converted, t.head_dim);
      q = reinterpret_cast<const char*>(converted);
    }
    s.queries[m] = q;
  }
}

// The n keys and values from position `begin` on.
void find_tokens(const AttentionTask& t, int64_t begin, int64_t n, Tokens& tokens) {
  const int64_t token_bytes = t.head_dim * (t.cache_type == Stored::kBf16 ? 2 : 4);
  int64_t block = begin / t.block_size, at = begin % t.block_size;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t offset = t.block_table[block] * t.block_stride + at * token_bytes;
    tokens.keys[i] = t.keys + offset;
    tokens.values[i] = t.values + offset;
    if (++at == t.block_size) {
      at = 0;
      ++block;
    }
  }
  for (int64_t i = n; i < kTile; ++i) tokens.keys[i] = tokens.values[i] = kZeros;
}

void widen_values(const AttentionTask& t, const Tokens& tokens, int64_t n, float* v) {
  const int64_t width = padded(t.head_dim);
  for (int64_t i = 0; i < n; ++i) {
    widen_row(tokens.values[i], t.cache_type, v + i * width, t.head_dim);
    for (int64_t d = t.head_dim; d < width; ++d) v[i * width + d] = 0.0f;
  }
}

}  // namespace

int64_t attention_scratch_bytes(int64_t group, int64_t head_dim) {
  return Scratch(nullptr, vectors_of(group), head_dim).bytes;
}

// Sums, then the largest score and the total.
int64_t attention_partial_floats(int64_t head_dim) { return padded(head_dim) + 16; }

void attention(const AttentionTask& t) {
  const int64_t vectors = t.rows * t.group, width = padded(t.head_dim);
  const int64_t context = t.first_position + t.rows;  // of the last row
  const bool bf16_cache = t.cache_type == Stored::kBf16, bf16_q = t.q_type == Stored::kBf16;
  const bool pairs = kPairProducts && bf16_cache && bf16_q;
  const int64_t token_dwords = t.head_dim * (bf16_cache ? 2 : 4) / 4;
  const bool direct = vectors <= 2 * kRows && t.head_dim % kWidth == 0;
  const Scratch s(t.scratch, vectors_of(t.group), t.head_dim);
  Tokens tokens[2];  // of this tile and the next, by turns
  point_to_queries(t, vectors, pairs, s);

  // The first query vector whose position is at least p.
  const auto first_at = [&](int64_t p) {
    return p > t.first_position ? (p - t.first_position) * t.group : 0;
  };
  for (int64_t split = t.split_begin; split < t.split_end; ++split) {
    const int64_t begin = split * kSplit, end = smaller(begin + kSplit, context);
    const State& state = split == 0 ? s.all : s.split;
    for (int64_t m = first_at(begin); m < vectors; ++m) {
      memset(state.sums + m * width, 0, static_cast<size_t>(width) * sizeof(float));
      state.largest[m] = kLowest;
      state.total[m] = 0.0f;
    }
    find_tokens(t, begin, smaller(end - begin, kTile), tokens[0]);
    for (int64_t p = begin; p < end; p += kTile) {
      const int64_t n = smaller(end - p, kTile), after = p + kTile;
      const Tokens& here = tokens[p / kTile % 2];
      Tokens& next = tokens[after / kTile % 2];
      if (after < end) find_tokens(t, after, smaller(end - after, kTile), next);
      transpose_keys(
          here, direct && after < end ? &next : nullptr, token_dwords, bf16_cache, pairs, s.k);
      if (!direct) widen_values(t, here, n, s.v);
      const Tile tile{p, s.k, direct ? nullptr : s.v, &here, after < end ? &next : &here};
      for (int64_t m = first_at(p); m < vectors; m += kRows) {
        choose_attend(smaller(vectors - m, kRows))(t, s.queries, m, tile, pairs, state);
      }
    }
    if (t.partial) {
      for (int64_t m = 0; m < vectors; ++m) {
        float* const partial = t.partial + m * attention_partial_floats(t.head_dim);
        memcpy(partial, state.sums + m * width, static_cast<size_t>(width) * sizeof(float));
        partial[width] = state.largest[m];
        partial[width + 1] = state.total[m];
      }
      return;
    }
    if (split == 0) continue;
    for (int64_t m = first_at(begin); m < vectors; ++m) {
      merge(s.all.sums + m * width,
            s.all.largest + m,
            s.all.total + m,
            s.split.sums + m * width,
            s.split.largest[m],
            s.split.total[m],
            width);
    }
  }
  const int64_t out_bytes = t.head_dim * (t.out_type == Stored::kBf16 ? 2 : 4);
  for (int64_t m = 0; m < vectors; ++m) {
    write_output(s.all.sums + m * width,
                 s.all.total[m],
                 t.head_dim,
                 t.out + m / t.group * t.out_stride + m % t.group * out_bytes,
                 t.out_type);
  }
}

void merge_attention(const MergeAttentionTask& t) {
  const int64_t width = padded(t.head_dim), stride = attention_partial_floats(t.head_dim);
  const int64_t out_bytes = t.head_dim * (t.out_type == Stored::kBf16 ? 2 : 4);
  for (int64_t g = 0; g < t.group; ++g) {
    float* const all = t.partials + g * stride;  // of split 0
    for (int64_t split = 1; split < t.splits; ++split) {
      const float* const p = t.partials + (split * t.group + g) * stride;
      merge(all, all + width, all + width + 1, p, p[width], p[width + 1], width);
    }
    write_output(all, all[width + 1], t.head_dim, t.out + g * out_bytes, t.out_type);
  }
}

}  // namespace flotilla::FLOTILLA_ISA
