// The inner loops of the CPU's ops, as plain functions over plain structs: one table per
// instruction set. What runs where and on which thread is decided above, in kernels/cpu/, by code
// that every CPU can run. No header but <stdint.h> here: see simd.h.
#pragma once

#include <stdint.h>

namespace flotilla {

enum class Stored : uint8_t { kF32, kBf16, kF16 };

// Packed weights: panels of kPanel outputs, one after the other, N padded with zero outputs.
//   F32:  [panel][K][kPanel]             a unit is one k
//   BF16: [panel][ceil(K / 2)][kPanel][2]  a unit is a pair of k, the second of the last one zero
//   if K is odd
inline constexpr int64_t kPanel = 32;
// Rows that share one pass over a panel; cutting rows at multiples of it wastes nothing.
inline constexpr int64_t kGemmRows = 8;
// Most rows of one GemmTask.
inline constexpr int64_t kMaxGemmRows = 96;

// y[out(r), panels] = x[in(r), :] · Wᵀ + bias for rows [row_begin, row_end), at most kMaxGemmRows.
struct GemmTask {
  const char* x;
  int64_t x_stride;       // bytes
  const int32_t* x_rows;  // row r reads x_rows[r]; nullptr: r
  char* y;
  int64_t y_stride;  // bytes
  const int32_t* out_rows;
  const char* w;
  int64_t n, k;
  const float* bias;  // [N] or nullptr
  Stored x_type, w_type, y_type;
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
};

// One token of rope_cache. Heads lie one after the other in `qkv`: q, k, v.
struct RopeTask {
  const float* qkv;
  int64_t heads, kv_heads, head_dim;
  const float *q_norm, *k_norm;  // or nullptr
  float eps;
  bool interleaved;
  const float *cos, *sin;  // of this position
  char* q;
  Stored q_type;
  char *k, *v;             // of KV head 0 in the cache; nullptr: not written
  int64_t kv_head_stride;  // bytes
  Stored cache_type;
};

// Attention of `rows` consecutive positions of one sequence for the query heads of one KV head,
// over whole splits. Query vector m is row m / group, head m % group.
inline constexpr int64_t kTile = 64;     // keys at a time, at multiples of kTile
inline constexpr int64_t kSplit = 512;  // keys whose partial results are merged, in order
inline constexpr int64_t kMaxQueryVectors = 96;
struct AttentionTask {
  const char* q;     // first row, first head of the group
  int64_t q_stride;  // bytes from row to row
  char* out;
  int64_t out_stride;
  Stored q_type, out_type, cache_type;
  int64_t rows, first_position, group, head_dim;
  float scale;
  const char *keys, *values;  // of this layer and KV head, in block 0
  int64_t block_stride;       // bytes from block to block
  int64_t block_size;
  const int32_t* block_table;
  int64_t split_begin, split_end;
  // nullptr: `out` is written. Else the state of one split (split_end = split_begin + 1),
  // attention_partial_floats() per query vector, for merge_attention().
  float* partial;
  char* scratch;  // attention_scratch_bytes(), aligned to 64
};
struct MergeAttentionTask {
  float* partials;  // [splits][group][attention_partial_floats()]; overwritten
  int64_t splits, group, head_dim;
  char* out;
  Stored out_type;
};

// One row of moe_topk; `probabilities` [E] is scratch.
struct TopkTask {
  const float *logits, *bias;  // bias may be nullptr
  int64_t experts, k;
  int32_t* ids;
  float *weights, *probabilities;
  bool renormalize;
  float norm_min;
};

// The tokens that are still in the draw: logit x and id with x > floor, or x == floor and id <=
// floor_id, and weight >= min_weight.
struct DrawTask {
  const float* x;
  int64_t v;
  float largest, temperature;
  float min_weight;  // of 1 for the best
  float floor;
  int32_t floor_id;
};

struct IsaKernels {
  void (*gemm)(const GemmTask& task);

  // v = x (+ residual, which becomes v); y = v · rsqrt(mean(v²) + eps) · w, over c elements.
  void (*rms_norm_row)(const float* x,
                       float* residual,
                       const float* w,
                       float eps,
                       int64_t c,
                       void* y,
                       Stored y_type);
  void (*swiglu_row)(const float* gate_up, int64_t width, void* y, Stored y_type);
  // n elements of x as F32, or of F32 x as BF16.
  void (*widen_row)(const void* x, Stored x_type, float* y, int64_t n);
  void (*round_row)(const float* x, uint16_t* y, int64_t n);
  void (*rope_token)(const RopeTask& task);

  void (*attention)(const AttentionTask& task);
  void (*merge_attention)(const MergeAttentionTask& task);
  int64_t (*attention_scratch_bytes)(int64_t group, int64_t head_dim);
  int64_t (*attention_partial_floats)(int64_t head_dim);

  void (*topk_row)(const TopkTask& task);
  // y = base + Σ_j weights[j] · rows[j,:]; base may be nullptr.
  void (*combine_row)(const float* rows,
                      int64_t row_stride,
                      const float* weights,
                      int64_t k,
                      const float* base,
                      float* y,
                      int64_t c);

  // y = x with NaN as -inf, and -inf where the bit mask (nullptr: none) says no.
  void (*clean_logits)(const float* x, const uint32_t* allowed, float* y, int64_t v);
  // The largest; NaN counts as -inf.
  float (*largest)(const float* x, int64_t v);
  // The lowest index with x == value; v if there is none.
  int64_t (*find)(const float* x, int64_t v, float value);
  // Σ e^(x - largest), NaN as -inf, in an order that depends on v only; what equals the largest
  // counts as e^0.
  double (*sum_exp)(const float* x, int64_t v, float largest);
  // How many come before (value, id): x > value, or x == value at a lower index; NaN as -inf.
  int64_t (*count_better)(const float* x, int64_t v, float value, int64_t id);
  // The n best, n <= v: largest first, ties by lower index, NaN as -inf.
  void (*best)(const float* x, int64_t v, int64_t n, int32_t* ids, float* values);
  // Writes the ids with x > floor, ascending; returns how many.
  int64_t (*collect_above)(const float* x, int64_t v, float floor, int32_t* ids);

  // Fixed-point weights, 2^30 for the best: round(e^((x - largest) / temperature) · 2^30), 0 if out
  // of the draw.
  uint64_t (*sum_weights)(const DrawTask& task);
  // The id at which the running sum of weights, by ascending id, exceeds `target` (<
  // sum_weights()).
  int64_t (*draw)(const DrawTask& task, uint64_t target);
  // The weights of the given ids.
  void (*weights_of)(const DrawTask& task, const int32_t* ids, int64_t n, uint32_t* weights);
};

}  // namespace flotilla
