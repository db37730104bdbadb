// Any config.json gives a sound ModelConfig or an error.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/check.h"
#include "engine/model/config.h"

using namespace flotilla;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Half of the inputs go on behind what every model says.
  constexpr const char* kNames[] = {
      "LlamaForCausalLM", "Qwen3MoeForCausalLM", "Ernie4_5_MoeForCausalLM"};
  std::string text(reinterpret_cast<const char*>(data), size);
  if (size > 0 && data[0] % 2 == 0) {
    text = std::string("{\"architectures\":[\"") + kNames[data[0] / 2 % 3] +
           "\"],\"hidden_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,\"vocab_size\":"
           "10," +
           text.substr(1);
  }
  const auto config = parse_model_config(text);
  if (!config.ok()) return 0;
  const ModelConfig& c = *config;
  check(c.num_layers >= 1 && c.layer_is_moe.size() == static_cast<size_t>(c.num_layers),
        "a flag per layer");
  check(c.num_heads % c.num_kv_heads == 0 && c.head_dim % 2 == 0,
        "heads that the kernels can take");
  check(!c.has_moe() ||
            (c.moe.experts_per_token >= 1 && c.moe.experts_per_token <= c.moe.num_experts),
        "a sound router");
  for (const TokenId id : c.eos_token_ids)
    check(id >= 0 && id < c.vocab_size, "ids of the vocabulary");
  return 0;
}
