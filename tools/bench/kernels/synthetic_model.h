// A dense transformer of random weights that chains the ops as the engine does: what the kernels
// alone would reach, end to end.
#pragma once

#include <memory>
#include <vector>

#include "kernels/device.h"
#include "kernels/kernel_table.h"

namespace flotilla {

struct SyntheticConfig {  // SmolLM2-135M
  int64_t layers = 30, hidden = 576, intermediate = 1536, heads = 9, kv_heads = 3, head_dim = 64;
  int64_t vocab = 49152, block_size = 64, max_context = 2048, max_sequences = 8, max_rows = 512;
};

class SyntheticModel {
 public:
  // Weights BF16; activations and cache of `activation`.
  SyntheticModel(const SyntheticConfig& config, DType activation, Device& device, Stream& stream);

  // Rows [from, from + rows) of each of the first n sequences; logits and a greedy token for the
  // last row of each.
  void step(int64_t sequences, int64_t from, int64_t rows);
  double weight_bytes() const { return weight_bytes_; }
  double pack_seconds() const { return pack_seconds_; }

 private:
  struct Layer {
    PackedWeight qkv, o, gate_up, down;
  };
  void* allocate(size_t bytes);
  TensorView tensor(DType type, std::initializer_list<int64_t> dims);
  PackedWeight weight(int64_t n, int64_t k);

  const SyntheticConfig c_;
  const DType activation_;
  Device& device_;
  Stream& stream_;
  std::vector<DeviceBuffer> buffers_;
  std::vector<uint16_t> source_;
  std::vector<Layer> layers_;
  PackedWeight head_;
  TensorView table_, norm_, cos_, sin_;
  TensorView tokens_, positions_, slots_, last_rows_, next_;
  TensorView q_offsets_, context_, block_table_;
  TensorView residual_, x_, delta_, qkv_, q_, mixed_, gate_up_, h_, last_, logits_;
  KvLayout layout_;
  void* cache_;
  void* attention_workspace_;
  void* sample_workspace_;
  std::vector<SamplerRow> sampler_rows_;
  double weight_bytes_ = 0.0, pack_seconds_ = 0.0;
};

}  // namespace flotilla
