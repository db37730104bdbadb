// The Llama family out of a GGUF file: configuration and tensors as Hugging Face transformers names
// and lays them out. Source: llama.cpp's converter (its permutation of q and k, undone here).
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "tools/convert/gguf.h"
#include "tools/convert/safetensors_writer.h"

namespace flotilla::convert {

struct LlamaFiles {
  std::string config_json;
  std::string generation_config_json;
  std::vector<OutputTensor> tensors;  // read from the file while they are written
};

// kUnimplemented for another architecture or a feature that the llama family here has not;
// kInvalidArgument for missing, misshapen or unknown tensors, by name. `gguf` outlives the result.
StatusOr<LlamaFiles> llama_from_gguf(const GgufContents& gguf, DType dtype);

}  // namespace flotilla::convert
