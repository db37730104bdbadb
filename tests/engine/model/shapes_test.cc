// Shapes and layouts that no fixture has, against a slow forward pass in double precision.
#include "tests/engine/model/oracle_files.h"
#include "tests/engine/model/sequence_runner.h"

using namespace flotilla;
using oracle::FileLayout;
using oracle::Shape;

namespace {

// `extra`: more keys of config.json, each with a comma in front.
std::string config_json(const Shape& s, const std::string& architecture, const std::string& extra) {
  std::string json = "{\"architectures\":[\"" + architecture + "\"],\"hidden_act\":\"silu\"";
  const auto key = [&](const char* name, auto value) {
    json += ",\"" + std::string(name) + "\":" + std::to_string(value);
  };
  key("num_hidden_layers", s.layers);
  key("hidden_size", s.hidden);
  key("num_attention_heads", s.heads);
  key("num_key_value_heads", s.kv_heads);
  key("head_dim", s.head_dim);
  key("intermediate_size", s.intermediate);
  key("vocab_size", s.vocab);
  key("max_position_embeddings", 512);
  key("rms_norm_eps", s.eps);
  key("rope_theta", s.theta);
  json += std::string(",\"tie_word_embeddings\":") + (s.tied ? "true" : "false");
  return json + extra + "}";
}

void check_model(const Shape& s,
                 const std::string& architecture,
                 const std::string& extra,
                 FileLayout layout = FileLayout::kPlain) {
  CAPTURE(architecture);
  CAPTURE(extra);
  const oracle::Weights weights = oracle::random_weights(s, 7);
  TempDir dir;
  write_file(dir.path / "config.json", config_json(s, architecture, extra));
  write_file(dir.path / "model.safetensors",
             safetensors_bytes(oracle::CheckpointWriter(s, weights, layout).tensors()));
  std::vector<int32_t> ids;
  for (int i = 0; i < 90; ++i) ids.push_back((i * 31 + 5) % s.vocab);
  const auto wanted = oracle::Model(s, weights).logits(ids);
  for (const CpuIsa isa : available_isas()) {
    CAPTURE(cpu_isa_name(isa));
    TestModel t = bring_up(dir.path, DType::kF32, isa);
    SequenceRunner whole(t);
    const auto got = whole.run(ids);
    double worst = 0;
    for (size_t r = 0; r < ids.size(); ++r) {
      const std::vector<float> reference(wanted[r].begin(), wanted[r].end());
      worst = std::max(worst, row_error(got[r], reference).max);
    }
    CHECK(worst <= 1e-4);
    // In chunks, one token among them: the same bits.
    SequenceRunner chunks(t);
    std::vector<std::vector<float>> pieces;
    for (size_t at = 0, n = 1; at < ids.size(); at += n, n = n * 3 % 41 + 1) {
      const size_t end = std::min(ids.size(), at + n);
      for (auto& row : chunks.run({ids.begin() + static_cast<ptrdiff_t>(at),
                                   ids.begin() + static_cast<ptrdiff_t>(end)})) {
        pieces.push_back(std::move(row));
      }
    }
    CHECK(pieces == got);
  }
}

Shape moe(Shape s, int experts, int top_k, int width, int shared, std::vector<bool> layers) {
  s.experts = experts;
  s.top_k = top_k;
  s.expert_width = width;
  s.shared_width = shared;
  s.moe_layer = std::move(layers);
  return s;
}

}  // namespace

TEST_CASE("Shapes.ErnieMoeWithAnInterval,AnEndIndexAndTwoSharedExperts") {
  Shape s = moe({.layers = 6}, 5, 2, 20, 40, {false, true, false, true, false, false});
  check_model(s,
              "Ernie4_5_MoeForCausalLM",
              ",\"moe_num_experts\":5,\"moe_k\":2,\"moe_intermediate_size\":20,\"moe_num_shared_"
              "experts\":2,"
              "\"moe_layer_start_index\":1,\"moe_layer_end_index\":4,\"moe_layer_interval\":2");
}

TEST_CASE("Shapes.ErnieMoeInPaddleLayout,UntiedWithAHeadThatIsTransposed") {
  Shape s = moe({.hidden = 40, .heads = 5, .kv_heads = 1, .head_dim = 8, .tied = false},
                7,
                3,
                12,
                0,
                {false, true});
  check_model(s,
              "Ernie4_5_MoeForCausalLM",
              ",\"moe_num_experts\":7,\"moe_k\":3,\"moe_intermediate_size\":12,\"moe_layer_start_"
              "index\":1,\"moe_layer_end_index\":-1",
              FileLayout::kPaddle);
}

TEST_CASE("Shapes.ErnieMoeWithStackedExperts") {
  Shape s = moe({}, 6, 2, 24, 24, {true, true});
  check_model(s,
              "Ernie4_5_MoeForCausalLM",
              ",\"moe_num_experts\":6,\"moe_k\":2,\"moe_intermediate_size\":24,\"moe_num_shared_"
              "experts\":1",
              FileLayout::kStacked);
}

TEST_CASE("Shapes.ErnieMoeWithoutCorrectionBias") {
  Shape s = moe({.correction_bias = false}, 4, 4, 16, 0, {true, true});
  check_model(
      s,
      "Ernie4_5_MoeForCausalLM",
      ",\"moe_num_experts\":4,\"moe_k\":4,\"moe_intermediate_size\":16,\"moe_use_aux_free\":false");
}

TEST_CASE("Shapes.ErnieDenseInPaddleLayoutWithARemovedTailLayer") {
  Shape s{.layers = 2, .hidden = 30, .heads = 3, .kv_heads = 3, .head_dim = 22, .intermediate = 37};
  check_model(s, "Ernie4_5_ForCausalLM", "", FileLayout::kPaddle);
}

TEST_CASE("Shapes.Qwen3DenseAndQwen3MoeWithoutRenormalisation") {
  Shape s{.family = "qwen3",
          .hidden = 52,
          .heads = 6,
          .kv_heads = 2,
          .head_dim = 12,
          .eps = 1e-6,
          .tied = false};
  check_model(s, "Qwen3ForCausalLM", "");
  s.renormalize = false;
  check_model(moe(s, 9, 3, 14, 0, {true, true}),
              "Qwen3MoeForCausalLM",
              ",\"num_experts\":9,\"num_experts_per_tok\":3,\"moe_intermediate_size\":14,\"norm_"
              "topk_prob\":false");
}

TEST_CASE("Shapes.Qwen3MoeWithASparseStepAndStackedExperts") {
  Shape s{.family = "qwen3", .layers = 4, .eps = 1e-6};
  check_model(moe(s, 4, 1, 30, 0, {false, true, false, false}),
              "Qwen3MoeForCausalLM",
              ",\"num_experts\":4,\"num_experts_per_tok\":1,\"moe_intermediate_size\":30,\"norm_"
              "topk_prob\":true,"
              "\"decoder_sparse_step\":2,\"mlp_only_layers\":[3]",
              FileLayout::kStacked);
}

TEST_CASE("Shapes.LlamaWithBiasesAndLlama3Scaling") {
  Shape s{
      .family = "llama", .heads = 6, .kv_heads = 3, .head_dim = 8, .bias = true, .llama3 = true};
  check_model(s,
              "LlamaForCausalLM",
              ",\"attention_bias\":true,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
              "\"low_freq_factor\":1.0,"
              "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}");
}

TEST_CASE("Shapes.LlamaWhoseHeadsAreOneKvHeadEach") {
  check_model(
      {.family = "llama", .hidden = 64, .heads = 4, .kv_heads = 4, .head_dim = 16, .tied = false},
      "LlamaForCausalLM",
      "");
}
