// Brings a checkpoint's tensors onto the device in the form that the layers want. Families name
// tensors as the checkpoint does; what differs between files of one family (Paddle's transposed,
// fused tensors, block FP8) is settled here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config.h"
#include "engine/model/expert_store.h"
#include "kernels/device.h"
#include "kernels/linear.h"

namespace flotilla {

// One source of a fused weight's rows: the tensor's name without ".weight", and how many rows it
// gives.
struct LinearPart {
  std::string name;
  int64_t rows = 0;
  // For tensors that stack all experts, [count, rows, k] without ".weight": which one.
  int64_t stacked_index = -1;
  int64_t stacked_count = 0;
};

struct LoadedLinear {
  PackedWeight weight;
  TensorView bias;  // [N] F32, or empty
};

class ModelLoader {
 public:
  struct Options {
    DType activation = DType::kF32;
    int64_t max_positions = 2048;  // rotary tables
    int threads = 1;
    std::function<void(double fraction)> progress;  // any thread, one at a time
  };
  ModelLoader(const ModelConfig& config, TensorSource& source, Device& device, Options options);

  const ModelConfig& config() const { return config_; }
  TensorSource& source() { return source_; }
  Device& device() { return device_; }
  const Stream& stream() const { return *stream_; }
  const Options& options() const { return options_; }

  // "ernie." for Paddle's files, else "model.": told by the tensors' names, never by config.json.
  bool paddle() const { return paddle_; }
  std::string prefix() const { return paddle_ ? "ernie." : "model."; }

  // The type that a GEMM weight is stored in: BF16 where that loses nothing the activation type
  // could see, else F32.
  DType stored_type(const LinearPart& part) const;

  bool has(const std::string& name) const { return source_.has(name); }
  // A tensor of this shape and any type, as F32, flat: [n].
  StatusOr<TensorView> vector(const std::string& name, const std::vector<int64_t>& shape);
  StatusOr<TensorView> vector(const std::string& name, int64_t n) {
    return vector(name, std::vector{n});
  }
  // Device memory that lives as long as the model.
  StatusOr<void*> allocate(size_t bytes);
  // name [rows, cols] unpacked, as BF16 or F32 (for lookups).
  StatusOr<TensorView> table(const std::string& name, int64_t rows, int64_t cols);
  // Weight of `parts` stacked along the output, packed; each part is `name.weight` [rows, k]
  // (Paddle: [k, rows]), or block FP8. `transposed`: whether the file has [k, rows]. Always F32
  // with `f32`.
  StatusOr<LoadedLinear> linear(const std::vector<LinearPart>& parts,
                                int64_t k,
                                bool bias,
                                bool transposed,
                                bool f32 = false);
  // As linear(), in the layout of this checkpoint's linears.
  StatusOr<LoadedLinear> linear(const std::vector<LinearPart>& parts, int64_t k, bool bias) {
    return linear(parts, k, bias, paddle_);
  }
  // Fills an existing packed weight at once; for experts.
  Status fill(const std::vector<LinearPart>& parts, const PackedWeight& into);
  // Checks and marks the same tensors without reading them.
  Status claim_unread(const std::vector<LinearPart>& parts, int64_t k);

  // Packs everything asked for so far, with options().threads threads.
  void run();
  // The memory of all that was loaded; the model keeps it.
  std::vector<DeviceBuffer> take_memory() { return std::move(memory_); }

 private:
  struct Source {
    HostTensor values;
    HostTensor scales;  // block FP8
    bool transposed;
  };

  std::string tensor_name(const LinearPart& part) const;
  StatusOr<Source> claim_part(const LinearPart& part, int64_t k, bool transposed);
  StatusOr<HostTensor> claim_as_f32(const std::string& name, const std::vector<int64_t>& shape);

  const ModelConfig& config_;
  TensorSource& source_;
  Device& device_;
  const std::unique_ptr<Stream> stream_;
  const Options options_;
  bool paddle_;
  std::vector<std::function<void()>> tasks_;
  std::vector<DeviceBuffer> memory_;
};

}  // namespace flotilla
