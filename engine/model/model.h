// A model from a directory: configuration, weights, and what is needed to load experts while it
// runs.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/status.h"
#include "engine/model/causal_lm.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config.h"
#include "engine/model/loader.h"

namespace flotilla {

struct ModelOptions {
  std::string dir;
  std::string config_file = "config.json";
  bool dummy_weights = false;
  uint64_t dummy_seed = 0;
};

// Configuration and where the weights are: cheap, nothing read but headers.
struct ModelFiles {
  ModelConfig config;
  std::unique_ptr<TensorSource> source;
  // SHA-256 over the configuration, the tokenizer's files, the safetensors headers and sizes (or
  // the dummy seed): hex.
  std::string digest;
};
StatusOr<ModelFiles> open_model(const ModelOptions& options);

// Everything but routed experts, which ExpertStore::place() loads.
class Model {
 public:
  static StatusOr<std::unique_ptr<Model>> load(ModelFiles files,
                                               Device& device,
                                               ModelLoader::Options options);

  const ModelConfig& config() const { return files_.config; }
  CausalLm& lm() { return *lm_; }
  // Bytes of the checkpoint read so far: not those of experts that live elsewhere.
  uint64_t bytes_read() const { return files_.source->bytes_read(); }

 private:
  Model() = default;

  ModelFiles files_;
  std::unique_ptr<ModelLoader> loader_;
  std::unique_ptr<CausalLm> lm_;
  std::vector<DeviceBuffer> memory_;
};

}  // namespace flotilla
