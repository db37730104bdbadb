#include "tools/bench/kernels/synthetic_model.h"

#include <chrono>
#include <cmath>
#include <random>

namespace flotilla {

SyntheticModel::SyntheticModel(const SyntheticConfig& config,
                               DType activation,
                               Device& device,
                               Stream& stream)
    : c_(config), activation_(activation), device_(device), stream_(stream) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  source_.resize(static_cast<size_t>(1) << 22);
  for (uint16_t& w : source_) w = f32_to_bf16(normal(random));
  source_.resize(static_cast<size_t>(c_.vocab * c_.hidden));
  for (size_t i = size_t{1} << 22; i < source_.size(); ++i)
    source_[i] = source_[i - (size_t{1} << 22)];

  const int64_t qkv_width = (c_.heads + 2 * c_.kv_heads) * c_.head_dim;
  for (int64_t i = 0; i < c_.layers; ++i) {
    layers_.push_back({.qkv = weight(qkv_width, c_.hidden),
                       .o = weight(c_.hidden, c_.heads * c_.head_dim),
                       .gate_up = weight(2 * c_.intermediate, c_.hidden),
                       .down = weight(c_.hidden, c_.intermediate)});
  }
  head_ = weight(c_.vocab, c_.hidden);
  table_ = TensorView(source_.data(), DType::kBf16, {c_.vocab, c_.hidden});
  norm_ = tensor(DType::kF32, {c_.hidden});
  std::fill_n(norm_.as<float>(), c_.hidden, 1.0f);
  cos_ = tensor(DType::kF32, {c_.max_context, c_.head_dim / 2});
  sin_ = tensor(DType::kF32, {c_.max_context, c_.head_dim / 2});
  for (int64_t p = 0; p < c_.max_context; ++p) {
    for (int64_t j = 0; j < c_.head_dim / 2; ++j) {
      const double phase =
          static_cast<double>(p) *
          std::pow(1e5, -2.0 * static_cast<double>(j) / static_cast<double>(c_.head_dim));
      cos_.row<float>(p)[j] = static_cast<float>(std::cos(phase));
      sin_.row<float>(p)[j] = static_cast<float>(std::sin(phase));
    }
  }

  const int64_t r = c_.max_rows, s = c_.max_sequences;
  const int64_t blocks = (c_.max_context + c_.block_size - 1) / c_.block_size;
  tokens_ = tensor(DType::kI32, {r});
  positions_ = tensor(DType::kI32, {r});
  slots_ = tensor(DType::kI32, {r});
  last_rows_ = tensor(DType::kI32, {s});
  next_ = tensor(DType::kI32, {s});
  q_offsets_ = tensor(DType::kI32, {s + 1});
  context_ = tensor(DType::kI32, {s});
  block_table_ = tensor(DType::kI32, {s, blocks});
  for (int64_t i = 0; i < s * blocks; ++i) block_table_.as<int32_t>()[i] = static_cast<int32_t>(i);
  residual_ = tensor(DType::kF32, {r, c_.hidden});
  x_ = tensor(activation, {r, c_.hidden});
  delta_ = tensor(DType::kF32, {r, c_.hidden});
  qkv_ = tensor(DType::kF32, {r, qkv_width});
  q_ = tensor(activation, {r, c_.heads, c_.head_dim});
  mixed_ = tensor(activation, {r, c_.heads, c_.head_dim});
  gate_up_ = tensor(DType::kF32, {r, 2 * c_.intermediate});
  h_ = tensor(activation, {r, c_.intermediate});
  last_ = tensor(activation, {s, c_.hidden});
  logits_ = tensor(DType::kF32, {s, c_.vocab});
  layout_ = {.num_layers = c_.layers,
             .num_blocks = s * blocks,
             .block_size = c_.block_size,
             .num_kv_heads = c_.kv_heads,
             .head_dim = c_.head_dim,
             .dtype = activation};
  cache_ = allocate(layout_.bytes());
  attention_workspace_ =
      allocate(paged_attention_workspace_bytes(r, c_.heads, c_.max_context, layout_, stream));
  sample_workspace_ = allocate(sample_workspace_bytes(s, c_.vocab, stream));
  SamplerRow greedy;
  greedy.temperature = 0.0f;
  sampler_rows_.assign(static_cast<size_t>(s), greedy);
}

void* SyntheticModel::allocate(size_t bytes) {
  StatusOr<DeviceBuffer> buffer = device_.allocate(bytes);
  check(buffer.ok(), buffer.status().message());
  buffers_.push_back(std::move(*buffer));
  return buffers_.back().data();
}

TensorView SyntheticModel::tensor(DType type, std::initializer_list<int64_t> dims) {
  TensorView view(nullptr, type, dims);
  view.data = allocate(static_cast<size_t>(view.elements()) * dtype_bytes(type));
  return view;
}

PackedWeight SyntheticModel::weight(int64_t n, int64_t k) {
  const size_t bytes = packed_linear_bytes(n, k, DType::kBf16, stream_);
  PackedWeight w{allocate(bytes), n, k, DType::kBf16};
  const TensorView source(source_.data(), DType::kBf16, {n, k});
  const auto start = std::chrono::steady_clock::now();
  pack_linear({.src = source, .dst = w}, stream_);
  pack_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  weight_bytes_ += static_cast<double>(bytes);
  return w;
}

void SyntheticModel::step(int64_t sequences, int64_t from, int64_t rows) {
  const int64_t total = sequences * rows;
  check(total <= c_.max_rows && sequences <= c_.max_sequences && from + rows <= c_.max_context,
        "the synthetic model is too small for this step");
  for (int64_t s = 0; s < sequences; ++s) {
    q_offsets_.as<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * rows);
    context_.as<int32_t>()[s] = static_cast<int32_t>(from + rows);
    last_rows_.as<int32_t>()[s] = static_cast<int32_t>((s + 1) * rows - 1);
    for (int64_t j = 0; j < rows; ++j) {
      const int64_t row = s * rows + j, position = from + j;
      tokens_.as<int32_t>()[row] = static_cast<int32_t>((row * 7919 + from) % c_.vocab);
      positions_.as<int32_t>()[row] = static_cast<int32_t>(position);
      slots_.as<int32_t>()[row] = static_cast<int32_t>(
          block_table_.row<int32_t>(s)[position / c_.block_size] * c_.block_size +
          position % c_.block_size);
    }
  }
  const auto first = [&](const TensorView& t) { return t.slice_rows(0, total); };
  const TensorView x = first(x_), delta = first(delta_), residual = first(residual_);
  const TensorView mixed(mixed_.data, activation_, {total, c_.heads * c_.head_dim});
  embedding({.table = table_, .ids = first(tokens_), .y = residual}, stream_);
  rms_norm({.y = x, .x = residual, .w = norm_}, stream_);
  for (int64_t i = 0; i < c_.layers; ++i) {
    const Layer& layer = layers_[static_cast<size_t>(i)];
    linear({.x = x, .w = layer.qkv, .y = first(qkv_)}, stream_);
    rope_cache({.qkv = first(qkv_),
                .cos = cos_,
                .sin = sin_,
                .positions = first(positions_),
                .slots = first(slots_),
                .q = first(q_),
                .cache = cache_,
                .layout = layout_,
                .layer = i},
               stream_);
    paged_attention({.q = first(q_),
                     .out = first(mixed_),
                     .q_offsets = q_offsets_.slice_rows(0, sequences + 1),
                     .context = context_.slice_rows(0, sequences),
                     .block_table = block_table_.slice_rows(0, sequences),
                     .scale = 0.125f,
                     .cache = cache_,
                     .layout = layout_,
                     .layer = i,
                     .workspace = attention_workspace_},
                    stream_);
    linear({.x = mixed, .w = layer.o, .y = delta}, stream_);
    rms_norm({.y = x, .x = delta, .w = norm_, .residual = residual}, stream_);
    linear({.x = x, .w = layer.gate_up, .y = first(gate_up_)}, stream_);
    swiglu({.gate_up = first(gate_up_), .y = first(h_)}, stream_);
    linear({.x = first(h_), .w = layer.down, .y = delta}, stream_);
    rms_norm({.y = x, .x = delta, .w = norm_, .residual = residual}, stream_);
  }
  const TensorView last = last_.slice_rows(0, sequences);
  const TensorView logits = logits_.slice_rows(0, sequences);
  gather_rows({.x = x, .rows = last_rows_.slice_rows(0, sequences), .y = last}, stream_);
  linear({.x = last, .w = head_, .y = logits}, stream_);
  sample({.logits = logits,
          .rows = sampler_rows_.data(),
          .tokens = next_.slice_rows(0, sequences),
          .workspace = sample_workspace_},
         stream_);
}

}  // namespace flotilla
