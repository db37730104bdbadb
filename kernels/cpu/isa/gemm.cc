// Dense layers: rows of x against packed panels. Every output is one chain of multiply-adds over
// ascending k, however many rows there are and wherever they lie, so that a row's result never
// depends on its company.
#include "kernels/cpu/isa/isa_kernels.h"
#include "kernels/cpu/isa/simd.h"

namespace flotilla::FLOTILLA_ISA {
namespace {

constexpr int kVectors = kPanel / kLanes;
// Rows whose sums over one panel fit into the registers.
constexpr int kRows = kLanes == 16 ? 8 : 3;
constexpr int64_t kUnitBytes = kPanel * 4;
// How far ahead of its use a weight is asked for, by passes of several rows: a pass of one or two
// is no faster than the hardware's own prefetching, and only disturbs it (measured). The next panel
// is the next in memory, so this crosses panels.
constexpr int64_t kPrefetchBytes = 4096;
constexpr int64_t kRowsToPrefetch = 3;
// Units of a panel that stay in the second-level cache (1 MiB and more) while all rows of a task
// pass over them.
constexpr int64_t kUnitsAtOnce = 2048;

template <typename T>
FLOTILLA_INLINE T read(const char* at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

// Element k of a row, in every lane.
template <bool kBf16X>
FLOTILLA_INLINE Floats broadcast_element(const char* row, int64_t k) {
  if constexpr (kBf16X) {
    return even_bf16(broadcast_dword(read<uint16_t>(row + 2 * k)));
  } else {
    return broadcast(read<float>(row + 4 * k));
  }
}

template <int R>
FLOTILLA_INLINE void add_products(const Floats (&a)[R],
                                  const Floats (&b)[kVectors],
                                  Floats (&sums)[R][kVectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(a[r], b[v], sums[r][v]);
  }
}

// sums[r] += x[r] · (one unit of a panel). kHalf: a pair whose second k does not exist.
template <bool kBf16X, bool kBf16W, bool kHalf, int R>
FLOTILLA_INLINE void add_unit(const char* const (&x)[R],
                              int64_t unit,
                              const char* w,
                              Floats (&sums)[R][kVectors]) {
  Floats a[R], b[kVectors];
  if constexpr (!kBf16W) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) b[v] = load(reinterpret_cast<const float*>(w) + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) a[r] = broadcast_element<kBf16X>(x[r], unit);
    add_products(a, b, sums);
    return;
  }
  Dwords pairs[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) pairs[v] = load_dwords(w + v * kLanes * 4);
#if defined(__AVX512BF16__)
  if constexpr (kBf16X && kBf16W) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const uint32_t pair =
          kHalf ? read<uint16_t>(x[r] + 4 * unit) : read<uint32_t>(x[r] + 4 * unit);
      const auto both = reinterpret_cast<__m512bh>(broadcast_dword(pair));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], both, reinterpret_cast<__m512bh>(pairs[v]));
      }
    }
    return;
  }
#endif
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) b[v] = even_bf16(pairs[v]);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) a[r] = broadcast_element<kBf16X>(x[r], 2 * unit);
  add_products(a, b, sums);
  if constexpr (kHalf) return;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) b[v] = odd_bf16(pairs[v]);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) a[r] = broadcast_element<kBf16X>(x[r], 2 * unit + 1);
  add_products(a, b, sums);
}

struct Pass {
  const char* x[kRows];  // at the first k of this pass
  const char* w;         // at its first unit
  int64_t units;         // whole ones
  bool half;             // then a half one
  bool resume;           // goes on with `sums`, else starts at zero
  float* sums;           // [rows][kPanel]
};

template <bool kBf16X, bool kBf16W, int R, bool kPrefetch>
void multiply_rows(const Pass& pass) {
  Floats sums[R][kVectors];
  const char* x[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    x[r] = pass.x[r];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = pass.resume ? load(pass.sums + r * kPanel + v * kLanes) : zero();
    }
  }
  const char* w = pass.w;
  for (int64_t unit = 0; unit < pass.units; ++unit, w += kUnitBytes) {
    if constexpr (kPrefetch) {
      _mm_prefetch(w + kPrefetchBytes, _MM_HINT_T0);
      _mm_prefetch(w + kPrefetchBytes + 64, _MM_HINT_T0);
    }
    add_unit<kBf16X, kBf16W, false, R>(x, unit, w, sums);
  }
  if constexpr (kBf16W) {
    if (pass.half) add_unit<kBf16X, kBf16W, true, R>(x, pass.units, w, sums);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(pass.sums + r * kPanel + v * kLanes, sums[r][v]);
  }
}

using MultiplyRows = void (*)(const Pass&);

template <bool kBf16X, bool kBf16W, bool kPrefetch>
MultiplyRows choose_rows(int64_t rows) {
  switch (rows) {
    case 1:
      return multiply_rows<kBf16X, kBf16W, 1, kPrefetch>;
    case 2:
      return multiply_rows<kBf16X, kBf16W, 2, kPrefetch>;
#if defined(__AVX512F__)
    case 3:
      return multiply_rows<kBf16X, kBf16W, 3, kPrefetch>;
    case 4:
      return multiply_rows<kBf16X, kBf16W, 4, kPrefetch>;
    case 5:
      return multiply_rows<kBf16X, kBf16W, 5, kPrefetch>;
    case 6:
      return multiply_rows<kBf16X, kBf16W, 6, kPrefetch>;
    case 7:
      return multiply_rows<kBf16X, kBf16W, 7, kPrefetch>;
#endif
    default:
      return multiply_rows<kBf16X, kBf16W, kRows, kPrefetch>;
  }
}

template <bool kPrefetch>
MultiplyRows choose(bool bf16_x, bool bf16_w, int64_t rows) {
  if (bf16_x)
    return bf16_w ? choose_rows<true, true, kPrefetch>(rows)
                  : choose_rows<true, false, kPrefetch>(rows);
  return bf16_w ? choose_rows<false, true, kPrefetch>(rows)
                : choose_rows<false, false, kPrefetch>(rows);
}

// Rounds and stores the first n outputs of one row's panel.
void finish_row(const float* sums, const float* bias, int64_t n, char* y, Stored y_type) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    Floats v = load(sums + i);
    if (left >= kLanes) {
      if (bias) v = add(v, load(bias + i));
      if (y_type == Stored::kBf16) {
        store_bf16(reinterpret_cast<uint16_t*>(y) + i, v);
      } else {
        store(reinterpret_cast<float*>(y) + i, v);
      }
    } else {
      if (bias) v = add(v, load_first(bias + i, left));
      if (y_type == Stored::kBf16) {
        store_bf16_first(reinterpret_cast<uint16_t*>(y) + i, v, left);
      } else {
        store_first(reinterpret_cast<float*>(y) + i, v, left);
      }
    }
  }
}

FLOTILLA_INLINE int64_t at(const int32_t* rows, int64_t r) { return rows ? rows[r] : r; }

}  // namespace

void gemm(const GemmTask& t) {
  alignas(64) float sums[kMaxGemmRows * kPanel];
  const bool bf16_x = t.x_type == Stored::kBf16, bf16_w = t.w_type == Stored::kBf16;
  const int64_t k_per_unit = bf16_w ? 2 : 1;
  const int64_t whole_units = t.k / k_per_unit, x_bytes = bf16_x ? 2 : 4;
  const bool half = t.k % k_per_unit != 0;
  const int64_t panel_bytes = (whole_units + half) * kUnitBytes;
  const int64_t y_bytes = t.y_type == Stored::kBf16 ? 2 : 4;
  const int64_t rows = t.row_end - t.row_begin;

  for (int64_t panel = t.panel_begin; panel < t.panel_end; ++panel) {
    const char* w = t.w + panel * panel_bytes;
    int64_t unit = 0;
    do {  // once even if K is 0: sums become zero
      const bool last = whole_units - unit <= kUnitsAtOnce;
      Pass pass;
      pass.w = w + unit * kUnitBytes;
      pass.units = last ? whole_units - unit : kUnitsAtOnce;
      pass.half = last && half;
      pass.resume = unit > 0;
      for (int64_t r = 0; r < rows; r += kRows) {
        const int64_t n = rows - r < kRows ? rows - r : kRows;
        for (int64_t i = 0; i < n; ++i) {
          pass.x[i] =
              t.x + at(t.x_rows, t.row_begin + r + i) * t.x_stride + unit * k_per_unit * x_bytes;
        }
        pass.sums = sums + r * kPanel;
        // Later passes find the panel in the cache.
        const MultiplyRows f = r == 0 && n >= kRowsToPrefetch ? choose<true>(bf16_x, bf16_w, n)
                                                              : choose<false>(bf16_x, bf16_w, n);
        f(pass);
      }
      unit += pass.units;
    } while (unit < whole_units);

    const int64_t first = panel * kPanel, n = t.n - first < kPanel ? t.n - first : kPanel;
    for (int64_t r = 0; r < rows; ++r) {
      finish_row(sums + r * kPanel,
                 t.bias ? t.bias + first : nullptr,
                 n,
                 t.y + at(t.out_rows, t.row_begin + r) * t.y_stride + first * y_bytes,
                 t.y_type);
    }
  }
}

}  // namespace flotilla::FLOTILLA_ISA
