#include "engine/model/loader.h"

#include <atomic>
#include <cstring>
#include <thread>

#include "common/mutex.h"

namespace flotilla {
namespace {

float element(const TensorView& view, int64_t i) {
  const auto* bytes =
      static_cast<const char*>(view.data) + i * static_cast<int64_t>(dtype_bytes(view.dtype));
  uint16_t half;
  float full;
  switch (view.dtype) {
    case DType::kBf16:
      std::memcpy(&half, bytes, 2);
      return bf16_to_f32(half);
    case DType::kF16:
      std::memcpy(&half, bytes, 2);
      return f16_to_f32(half);
    case DType::kF8E4M3:
      return f8e4m3_to_f32(static_cast<uint8_t>(*bytes));
    default:
      std::memcpy(&full, bytes, 4);
      return full;
  }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

ModelLoader::ModelLoader(const ModelConfig& config,
                         TensorSource& source,
                         Device& device,
                         Options options)
    : config_(config),
      source_(source),
      device_(device),
      stream_(device.create_stream()),
      options_(std::move(options)),
      paddle_(source.has("ernie.embed_tokens.weight")) {}

StatusOr<void*> ModelLoader::allocate(size_t bytes) {
  StatusOr<DeviceBuffer> buffer = device_.allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  memory_.push_back(std::move(*buffer));
  return memory_.back().data();
}

DType ModelLoader::stored_type(const LinearPart& part) const {
  if (options_.activation == DType::kBf16) return DType::kBf16;
  const StatusOr<DType> file = source_.dtype(tensor_name(part));
  return file.ok() && *file == DType::kBf16 ? DType::kBf16 : DType::kF32;
}

std::string ModelLoader::tensor_name(const LinearPart& part) const {
  if (part.stacked_index >= 0) return part.name;
  if (source_.has(part.name + ".quant_weight")) return part.name + ".quant_weight";
  return part.name + ".weight";
}

StatusOr<HostTensor> ModelLoader::claim_as_f32(const std::string& name,
                                               const std::vector<int64_t>& shape) {
  StatusOr<HostTensor> tensor = source_.claim(name, shape);
  if (!tensor.ok()) return tensor.status();
  const int64_t n = tensor->view.elements();
  auto values = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(n) * 4);
  auto* out = reinterpret_cast<float*>(values->data());
  for (int64_t i = 0; i < n; ++i) out[i] = element(tensor->view, i);
  HostTensor host{tensor->view, values};
  host.view.data = values->data();
  host.view.dtype = DType::kF32;
  return host;
}

StatusOr<TensorView> ModelLoader::vector(const std::string& name,
                                         const std::vector<int64_t>& shape) {
  const StatusOr<HostTensor> host = claim_as_f32(name, shape);
  if (!host.ok()) return host.status();
  const int64_t n = host->view.elements();
  const StatusOr<void*> memory = allocate(static_cast<size_t>(n) * 4);
  if (!memory.ok()) return memory.status();
  std::memcpy(*memory, host->view.data, static_cast<size_t>(n) * 4);
  return TensorView(*memory, DType::kF32, {n});
}

StatusOr<TensorView> ModelLoader::table(const std::string& name, int64_t rows, int64_t cols) {
  StatusOr<HostTensor> host = source_.claim(name, {rows, cols});
  if (!host.ok()) return host.status();
  if (host->view.dtype == DType::kF8E4M3) {
    return invalid_argument("tensor '" + name + "' is FP8; embeddings are never quantised");
  }
  const DType dtype = host->view.dtype;
  const size_t bytes = static_cast<size_t>(rows * cols) * dtype_bytes(dtype);
  const StatusOr<void*> memory = allocate(bytes);
  if (!memory.ok()) return memory.status();
  tasks_.push_back([host = *host, to = *memory, bytes] { std::memcpy(to, host.view.data, bytes); });
  return TensorView(*memory, dtype, {rows, cols});
}

StatusOr<ModelLoader::Source> ModelLoader::claim_part(const LinearPart& part,
                                                      int64_t k,
                                                      bool transposed) {
  Source source{.values = {}, .scales = {}, .transposed = transposed};
  const std::string name = tensor_name(part);
  if (part.stacked_index >= 0) {
    StatusOr<HostTensor> all = source_.claim(name, {part.stacked_count, part.rows, k});
    if (!all.ok()) return all.status();
    source.values = std::move(*all);
    TensorView& view = source.values.view;
    const int64_t bytes = part.rows * k * static_cast<int64_t>(dtype_bytes(view.dtype));
    view = TensorView(
        static_cast<char*>(view.data) + part.stacked_index * bytes, view.dtype, {part.rows, k});
    if (view.dtype == DType::kF8E4M3)
      return unimplemented("tensor '" + name + "': stacked experts in FP8");
    return source;
  }
  const std::vector<int64_t> shape =
      transposed ? std::vector{k, part.rows} : std::vector{part.rows, k};
  StatusOr<HostTensor> values = source_.claim(name, shape);
  if (!values.ok()) return values.status();
  source.values = std::move(*values);
  if (source.values.view.dtype != DType::kF8E4M3) return source;

  if (config_.fp8_block == 0) {
    return invalid_argument("tensor '" + part.name +
                            "' is FP8, and config.json has no block-wise quantization_config");
  }
  const std::string scale_name =
      part.name + (name.ends_with(".quant_weight") ? ".weight_scale" : ".weight_scale_inv");
  StatusOr<HostTensor> scales = claim_as_f32(
      scale_name, {ceil_div(shape[0], config_.fp8_block), ceil_div(shape[1], config_.fp8_block)});
  if (!scales.ok()) return scales.status();
  source.scales = std::move(*scales);
  return source;
}

StatusOr<LoadedLinear> ModelLoader::linear(
    const std::vector<LinearPart>& parts, int64_t k, bool bias, bool transposed, bool f32) {
  LoadedLinear out;
  out.weight.k = k;
  out.weight.dtype = f32 ? DType::kF32 : DType::kBf16;
  for (const LinearPart& part : parts) {
    out.weight.n += part.rows;
    if (stored_type(part) == DType::kF32) out.weight.dtype = DType::kF32;
  }
  const StatusOr<void*> memory =
      allocate(packed_linear_bytes(out.weight.n, k, out.weight.dtype, *stream_));
  if (!memory.ok()) return memory.status();
  out.weight.data = *memory;

  int64_t first_row = 0;
  for (const LinearPart& part : parts) {
    StatusOr<Source> source = claim_part(part, k, transposed);
    if (!source.ok()) return source.status();
    tasks_.push_back([this, source = *source, weight = out.weight, first_row] {
      pack_linear({.src = source.values.view,
                   .transposed = source.transposed,
                   .scales = source.scales.view,
                   .scale_block = config_.fp8_block,
                   .dst = weight,
                   .first_row = first_row},
                  *stream_);
    });
    first_row += part.rows;
  }
  if (!bias) return out;

  const StatusOr<void*> bias_memory = allocate(static_cast<size_t>(out.weight.n) * 4);
  if (!bias_memory.ok()) return bias_memory.status();
  out.bias = TensorView(*bias_memory, DType::kF32, {out.weight.n});
  int64_t at = 0;
  for (const LinearPart& part : parts) {
    const StatusOr<HostTensor> values = claim_as_f32(part.name + ".bias", {part.rows});
    if (!values.ok()) return values.status();
    std::memcpy(out.bias.as<float>() + at, values->view.data, static_cast<size_t>(part.rows) * 4);
    at += part.rows;
  }
  return out;
}

Status ModelLoader::fill(const std::vector<LinearPart>& parts, const PackedWeight& into) {
  int64_t first_row = 0;
  for (const LinearPart& part : parts) {
    const StatusOr<Source> source = claim_part(part, into.k, paddle_);
    if (!source.ok()) return source.status();
    pack_linear({.src = source->values.view,
                 .transposed = source->transposed,
                 .scales = source->scales.view,
                 .scale_block = config_.fp8_block,
                 .dst = into,
                 .first_row = first_row},
                *stream_);
    first_row += part.rows;
  }
  return ok_status();
}

Status ModelLoader::claim_unread(const std::vector<LinearPart>& parts, int64_t k) {
  for (const LinearPart& part : parts) {
    if (part.stacked_index >= 0) {
      FLOTILLA_RETURN_IF_ERROR(source_.claim_unread(part.name, {part.stacked_count, part.rows, k}));
      continue;
    }
    const std::vector<int64_t> shape =
        paddle_ ? std::vector{k, part.rows} : std::vector{part.rows, k};
    FLOTILLA_RETURN_IF_ERROR(source_.claim_unread(tensor_name(part), shape));
    for (const char* suffix : {".weight_scale", ".weight_scale_inv"}) {
      if (config_.fp8_block == 0 || !source_.has(part.name + suffix)) continue;
      FLOTILLA_RETURN_IF_ERROR(source_.claim_unread(
          part.name + suffix,
          {ceil_div(shape[0], config_.fp8_block), ceil_div(shape[1], config_.fp8_block)}));
    }
  }
  return ok_status();
}

void ModelLoader::run() {
  std::atomic<size_t> next = 0, done = 0;
  Mutex mutex;
  const auto work = [&] {
    for (size_t i = next++; i < tasks_.size(); i = next++) {
      tasks_[i]();
      const size_t finished = ++done;
      if (!options_.progress) continue;
      MutexLock lock(mutex);
      options_.progress(static_cast<double>(finished) / static_cast<double>(tasks_.size()));
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < options_.threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  tasks_.clear();
}

}  // namespace flotilla
