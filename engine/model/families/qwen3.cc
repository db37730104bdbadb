// Qwen3, MoE and dense: GQA with an RMS norm on every head of q and k before a half-split rotation;
// softmax router without bias, no shared expert. Source: transformers modeling_qwen3.py,
// modeling_qwen3_moe.py.
#include "engine/model/families/families.h"
#include "engine/model/layers/decoder.h"

namespace flotilla {

StatusOr<std::unique_ptr<CausalLm>> make_qwen3(ModelLoader& loader) { return load_decoder(loader); }

}  // namespace flotilla
