#include <cstring>

#include "kernels/cpu/cpu_stream.h"

namespace flotilla::cpu {
namespace {

// Nanoseconds for a row of so many elements, at so many elements a nanosecond.
int64_t row_cost(int64_t elements, int64_t per_nanosecond) {
  return elements / per_nanosecond + 20;
}

void* row_at(const TensorView& view, int64_t row) {
  return static_cast<char*>(view.data) +
         row * view.row_stride * static_cast<int64_t>(dtype_bytes(view.dtype));
}

}  // namespace

void embedding(const EmbeddingParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int64_t c = p.y.cols();
  const Stored type = stored_type(p.table.dtype);
  s.parallel_for_each(p.y.rows(), row_cost(c, 8), [&](int64_t t) {
    const int32_t id = p.ids.as<int32_t>()[t];
    check(id >= 0 && id < p.table.rows(), "embedding: a token id lies outside of the table");
    s.isa().widen_row(row_at(p.table, id), type, p.y.row<float>(t), c);
  });
}

void gather_rows(const GatherRowsParams& p, Stream& stream) {
  const size_t bytes = static_cast<size_t>(p.y.cols()) * dtype_bytes(p.y.dtype);
  cpu_stream(stream).parallel_for_each(p.y.rows(), row_cost(p.y.cols(), 8), [&](int64_t i) {
    const int32_t row = p.rows.as<int32_t>()[i];
    check(row >= 0 && row < p.x.rows(), "gather_rows: a row lies outside of x");
    std::memcpy(row_at(p.y, i), row_at(p.x, row), bytes);
  });
}

void rms_norm(const RmsNormParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int64_t c = p.x.cols();
  const Stored type = stored_type(p.y.dtype);
  s.parallel_for_each(p.x.rows(), row_cost(c, 4), [&](int64_t t) {
    float* const residual = p.residual.empty() ? nullptr : p.residual.row<float>(t);
    s.isa().rms_norm_row(
        p.x.row<float>(t), residual, p.w.as<float>(), p.eps, c, row_at(p.y, t), type);
  });
}

void swiglu(const SwiGluParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int64_t width = p.y.cols();
  const Stored type = stored_type(p.y.dtype);
  s.parallel_for_each(p.y.rows(), row_cost(width, 2), [&](int64_t r) {
    s.isa().swiglu_row(p.gate_up.row<float>(r), width, row_at(p.y, r), type);
  });
}

void cast(const CastParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int64_t c = p.y.cols();
  const Stored from = stored_type(p.x.dtype);
  s.parallel_for_each(p.y.rows(), row_cost(c, 8), [&](int64_t t) {
    void* const y = row_at(p.y, t);
    const void* const x = row_at(p.x, t);
    if (p.y.dtype == DType::kF32) {
      s.isa().widen_row(x, from, static_cast<float*>(y), c);
    } else if (p.x.dtype == DType::kF32) {
      s.isa().round_row(static_cast<const float*>(x), static_cast<uint16_t*>(y), c);
    } else {
      std::memcpy(y, x, static_cast<size_t>(c) * sizeof(uint16_t));
    }
  });
}

void rope_cache(const RopeCacheParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const KvLayout& l = p.layout;
  const int64_t d = l.head_dim, element = static_cast<int64_t>(dtype_bytes(l.dtype));
  RopeTask shared = {};
  shared.heads = p.q.shape[1];
  shared.kv_heads = l.num_kv_heads;
  shared.head_dim = d;
  shared.q_norm = p.q_norm.as<float>();
  shared.k_norm = p.k_norm.as<float>();
  shared.eps = p.eps;
  shared.interleaved = p.style == RopeStyle::kInterleaved;
  shared.q_type = stored_type(p.q.dtype);
  shared.kv_head_stride = l.head_elements() * element;
  shared.cache_type = stored_type(l.dtype);
  s.parallel_for_each(p.q.rows(), row_cost(p.qkv.cols(), 1), [&](int64_t t) {
    RopeTask task = shared;
    const int32_t position = p.positions.as<int32_t>()[t];
    check(position >= 0 && position < p.cos.rows(),
          "rope_cache: a position lies outside of the table");
    task.qkv = p.qkv.row<float>(t);
    task.cos = p.cos.row<float>(position);
    task.sin = p.sin.row<float>(position);
    task.q = static_cast<char*>(row_at(p.q, t));
    if (const int32_t slot = p.slots.as<int32_t>()[t]; slot >= 0) {
      check(slot < l.num_blocks * l.block_size, "rope_cache: a slot lies outside of the pool");
      const int64_t block = slot / l.block_size, at = slot % l.block_size * d;
      auto* const cache = static_cast<char*>(p.cache);
      task.k = cache + (l.offset(p.layer, block, 0, 0) + at) * element;
      task.v = cache + (l.offset(p.layer, block, 1, 0) + at) * element;
    }
    s.isa().rope_token(task);
  });
}

}  // namespace flotilla::cpu
