// ERNIE-4.5 text models, MoE and dense, from "-PT" and "-Paddle" files, bf16 and block FP8: GQA
// with interleaved rotation, no biases, softmax router whose correction bias chooses but does not
// weigh, shared experts added unweighted. Source: transformers modeling_ernie4_5_moe.py, FastDeploy
// ernie4_5_moe.py.
#include "engine/model/families/families.h"
#include "engine/model/layers/decoder.h"

namespace flotilla {

StatusOr<std::unique_ptr<CausalLm>> make_ernie4_5(ModelLoader& loader) {
  for (const char* name : {"mtp_block.", "mtp_emb_norm.", "mtp_hidden_norm.", "mtp_linear_proj."}) {
    loader.source().ignore_prefix(loader.prefix() + name);
  }
  return load_decoder(loader);
}

}  // namespace flotilla
