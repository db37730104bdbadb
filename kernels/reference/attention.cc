#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/reference/element.h"
#include "kernels/reference/reference_table.h"

namespace flotilla::reference {
namespace {

// Rotates one head of `qkv` (after its optional norm) into `out` [D].
void rotate_head(
    const RopeCacheParams& p, int64_t t, const float* head, const TensorView& norm, float* out) {
  const int64_t d = p.layout.head_dim, half = d / 2;
  double scale = 1.0;
  if (!norm.empty()) {
    double squares = 0.0;
    for (int64_t i = 0; i < d; ++i) squares += static_cast<double>(head[i]) * head[i];
    scale = 1.0 / std::sqrt(squares / static_cast<double>(d) + p.eps);
  }
  const auto value = [&](int64_t i) {
    return norm.empty() ? head[i] : static_cast<float>(head[i] * scale * norm.as<float>()[i]);
  };
  const int32_t position = p.positions.as<int32_t>()[t];
  check(position >= 0 && position < p.cos.rows(),
        "rope_cache: a position lies outside of the table");
  for (int64_t j = 0; j < half; ++j) {
    const int64_t first = p.style == RopeStyle::kInterleaved ? 2 * j : j;
    const int64_t second = p.style == RopeStyle::kInterleaved ? 2 * j + 1 : j + half;
    const double a = value(first), b = value(second);
    const double c = load(p.cos, position, j), s = load(p.sin, position, j);
    out[first] = static_cast<float>(a * c - b * s);
    out[second] = static_cast<float>(b * c + a * s);
  }
}

constexpr int64_t kMaxHeadDim = 256;

}  // namespace

void rope_cache(const RopeCacheParams& p, Stream&) {
  const KvLayout& l = p.layout;
  const int64_t heads = p.q.shape[1], d = l.head_dim;
  float rotated[kMaxHeadDim];
  for (int64_t t = 0; t < p.q.rows(); ++t) {
    const float* row = p.qkv.row<float>(t);
    for (int64_t h = 0; h < heads; ++h) {
      rotate_head(p, t, row + h * d, p.q_norm, rotated);
      for (int64_t i = 0; i < d; ++i) store(p.q, t, h * d + i, rotated[i]);
    }
    const int32_t slot = p.slots.as<int32_t>()[t];
    if (slot < 0) continue;
    check(slot < l.num_blocks * l.block_size, "rope_cache: a slot lies outside of the pool");
    const int64_t block = slot / l.block_size, at = slot % l.block_size * d;
    for (int64_t h = 0; h < l.num_kv_heads; ++h) {
      rotate_head(p, t, row + (heads + h) * d, p.k_norm, rotated);
      const float* v = row + (heads + l.num_kv_heads + h) * d;
      for (int64_t i = 0; i < d; ++i) {
        store_element(p.cache, l.dtype, l.offset(p.layer, block, 0, h) + at + i, rotated[i]);
        store_element(p.cache, l.dtype, l.offset(p.layer, block, 1, h) + at + i, v[i]);
      }
    }
  }
}

void paged_attention(const PagedAttentionParams& p, Stream&) {
  const KvLayout& l = p.layout;
  const int64_t heads = p.q.shape[1], d = l.head_dim, group = heads / l.num_kv_heads;
  const int32_t* offsets = p.q_offsets.as<int32_t>();
  auto* scores = static_cast<double*>(p.workspace);
  for (int64_t s = 0; s < p.context.rows(); ++s) {
    const int64_t rows = offsets[s + 1] - offsets[s];
    const int64_t first_position = p.context.as<int32_t>()[s] - rows;
    check(first_position >= 0, "paged_attention: a context is shorter than its rows");
    // Element offset of the K (0) or V (1) of one token.
    const auto token = [&](int64_t t, int which, int64_t head) {
      const int64_t block = p.block_table.row<int32_t>(s)[t / l.block_size];
      return l.offset(p.layer, block, which, head) + t % l.block_size * d;
    };
    for (int64_t j = 0; j < rows; ++j) {
      const int64_t row = offsets[s] + j, visible = first_position + j + 1;
      for (int64_t h = 0; h < heads; ++h) {
        double largest = -std::numeric_limits<double>::infinity();
        for (int64_t t = 0; t < visible; ++t) {
          const int64_t k = token(t, 0, h / group);
          double dot = 0.0;
          for (int64_t i = 0; i < d; ++i) {
            dot += static_cast<double>(load(p.q, row, h * d + i)) *
                   load_element(p.cache, l.dtype, k + i);
          }
          scores[t] = dot * p.scale;
          largest = std::max(largest, scores[t]);
        }
        for (int64_t t = 0; t < visible; ++t) scores[t] = std::exp(scores[t] - largest);
        const double total = std::accumulate(scores, scores + visible, 0.0);
        for (int64_t i = 0; i < d; ++i) {
          double sum = 0.0;
          for (int64_t t = 0; t < visible; ++t) {
            sum += scores[t] * load_element(p.cache, l.dtype, token(t, 1, h / group) + i);
          }
          store(p.out, row, h * d + i, static_cast<float>(sum / total));
        }
      }
    }
  }
}

size_t paged_attention_workspace_bytes(
    int64_t, int64_t, int64_t max_context, const KvLayout&, const Stream&) {
  return static_cast<size_t>(max_context) * sizeof(double);
}

}  // namespace flotilla::reference
