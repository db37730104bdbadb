// A dense Llama checkpoint, row by row as floats: what the twins are made of.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config.h"

namespace flotilla::convert {

// A matrix [rows, cols] (or a vector: one row) in the mapped checkpoint.
struct Rows {
  TensorView view;

  int64_t rows() const { return view.ndim == 1 ? 1 : view.shape[0]; }
  int64_t cols() const { return view.shape[static_cast<size_t>(view.ndim - 1)]; }
  // BF16 stays BF16 in what is made of it; everything else becomes F32.
  DType output_dtype() const { return view.dtype == DType::kBf16 ? DType::kBf16 : DType::kF32; }
  // Threads: any.
  void read(int64_t row, float* out) const;
};

struct DenseLayer {
  Rows input_norm, q, k, v, o, post_norm;  // [C], [HD, C], [KD, C], [KD, C], [C, HD], [C]
  Rows gate, up, down;                     // [I, C], [I, C], [C, I]
};

struct DenseModel {
  // kUnimplemented unless it is a Llama without biases, rope scaling and FP8; else as
  // open_checkpoint(), with every tensor claimed.
  static StatusOr<DenseModel> open(const std::string& dir);

  ModelConfig config;
  std::unique_ptr<TensorSource> source;  // keeps the mapping
  std::string special_ids_json;          // "bos_token_id":1,… as config.json has them
  Rows embedding, norm;                  // [V, C], [C]
  std::optional<Rows> head;              // [V, C]; absent if tied
  std::vector<DenseLayer> layers;
};

}  // namespace flotilla::convert
