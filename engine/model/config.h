// config.json as one plain struct, the same for every family, validated once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "engine/request.h"
#include "kernels/rope_cache.h"

namespace flotilla {

// Llama 3.1's stretching of low frequencies. Source: transformers modeling_rope_utils.py, "llama3".
struct Llama3RopeScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_position = 8192.0;
};

struct MoeConfig {
  int64_t num_experts = 0;               // E; 0: no MoE layer
  int64_t experts_per_token = 0;         // k
  int64_t intermediate_size = 0;         // M, width of one expert
  int64_t shared_intermediate_size = 0;  // width of the shared experts taken together; 0: none
  bool renormalize = true;
  float norm_min = 0.0f;         // lower bound of the renormalising sum
  bool correction_bias = false;  // e_score_correction_bias: chooses, does not weigh
};

struct ModelConfig {
  std::string architecture;  // architectures[0]
  int64_t num_layers = 0;
  int64_t hidden_size = 0;        // C
  int64_t num_heads = 0;          // H
  int64_t num_kv_heads = 0;       // K
  int64_t head_dim = 0;           // D; H · D may differ from C
  int64_t intermediate_size = 0;  // I, of dense layers
  int64_t vocab_size = 0;         // V
  int64_t max_position = 0;
  float rms_norm_eps = 1e-6f;
  double rope_theta = 10000.0;
  double position_divisor = 1.0;  // ERNIE's compression_ratio
  std::optional<Llama3RopeScaling> rope_scaling;
  RopeStyle rope_style = RopeStyle::kHalf;
  bool qk_norm = false;
  bool attention_bias = false;  // of q, k, v and o
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  MoeConfig moe;
  std::vector<bool> layer_is_moe;  // [num_layers]
  int64_t fp8_block = 0;           // 0: no block-FP8 weights; else the edge of a scale's block
  std::vector<TokenId> eos_token_ids;
  std::optional<TokenId> bos_token_id;
  std::vector<std::string> notes;  // keys of the file that this engine knowingly does without

  bool has_moe() const { return moe.num_experts > 0; }
  int64_t num_moe_layers() const;
  // Bytes of one token's K and V over all layers.
  int64_t kv_bytes_per_token(DType dtype) const {
    return 2 * num_layers * num_kv_heads * head_dim * static_cast<int64_t>(dtype_bytes(dtype));
  }
};

// Reads and checks `text`. kInvalidArgument names the key, what was found and what is allowed;
// kUnimplemented names a feature of the model that this version cannot run.
StatusOr<ModelConfig> parse_model_config(std::string_view text);
// `dir`/`file`; errors name the path.
StatusOr<ModelConfig> load_model_config(const std::string& dir,
                                        const std::string& file = "config.json");

}  // namespace flotilla
