// How large a model is, from the heads of its files: for the plan's memory column and its warning.
// The ranks check exactly.
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"

namespace flotilla {

struct ModelSizes {
  int64_t expert_bytes = 0;  // weights of routed experts, all layers
  int64_t other_bytes = 0;   // every other weight
  int64_t kv_elements_per_token =
      0;  // over all layers, keys and values; 0 if config.json does not say
};

// `folder` holds config.json and *.safetensors. kNotFound if it has no weights, kInvalidArgument if
// a file cannot be read as such.
StatusOr<ModelSizes> read_model_sizes(const std::string& folder);

}  // namespace flotilla
