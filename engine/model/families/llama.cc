// Llama (Llama 2 and 3, SmolLM2): GQA, half-split rotation, Llama 3.1's frequency scaling, dense.
// Source: transformers modeling_llama.py.
#include "engine/model/families/families.h"
#include "engine/model/layers/decoder.h"

namespace flotilla {

StatusOr<std::unique_ptr<CausalLm>> make_llama(ModelLoader& loader) {
  // Old checkpoints carry the frequencies; they are computed here.
  for (int64_t i = 0; i < loader.config().num_layers; ++i) {
    loader.source().ignore_prefix("model.layers." + std::to_string(i) + ".self_attn.rotary_emb.");
  }
  return load_decoder(loader);
}

}  // namespace flotilla
