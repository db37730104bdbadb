// Twins of a tiny random Llama: the same greedy tokens, and others as soon as the routing is wrong.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include "common/fd.h"
#include "tests/tools/convert/greedy.h"
#include "tests/tools/convert/scratch_dir.h"
#include "tools/convert/convert.h"
#include "tools/convert/moe_twin.h"
#include "tools/convert/noise.h"

using namespace flotilla;
using namespace flotilla::convert;

namespace {

constexpr const char* kLlama = FLOTILLA_TEST_MODELS "/llama";
constexpr size_t kTokens = 24;

const Fixture& dense() {
  static const Fixture* fixture = new Fixture(load_fixture(kLlama));
  return *fixture;
}

// A twin of the fixture in `dir`; it must work.
TwinReport make_twin(const std::string& dir,
                     const std::string& kind,
                     int experts = 8,
                     int threads = 2) {
  StatusOr<TwinOptions> options = parse_twin(kind);
  REQUIRE(options.ok());
  options->experts = experts;
  options->threads = threads;
  const StatusOr<TwinReport> report = convert_moe_twin(kLlama, dir, *options);
  REQUIRE_MESSAGE(report.ok(), report.status().message());
  return *report;
}

std::vector<std::vector<TokenId>> texts(TestModel& model,
                                        const FaultyExchange::Faults& faults = {}) {
  GreedyRunner runner(model);
  std::vector<std::vector<TokenId>> out;
  for (const ReferencePrompt& prompt : dense().prompts) {
    out.push_back(runner.generate(prompt.ids, kTokens, faults));
  }
  return out;
}

std::vector<std::vector<TokenId>> reference_texts() {
  std::vector<std::vector<TokenId>> out;
  for (const ReferencePrompt& prompt : dense().prompts) {
    out.emplace_back(prompt.greedy.begin(), prompt.greedy.begin() + kTokens);
  }
  return out;
}

void replace_in(const std::string& path, const std::string& from, const std::string& to) {
  auto text = read_file(path, 1 << 20);
  REQUIRE(text.ok());
  const size_t at = text->find(from);
  REQUIRE(at != std::string::npos);
  text->replace(at, from.size(), to);
  std::ofstream(path, std::ios::binary) << *text;
}

// Sets every value of an F32 tensor of model.safetensors.
void overwrite_tensor(const std::string& dir, const std::string& name, float value) {
  uint64_t offset, count;
  {
    const auto file = SafetensorsFile::open(dir + "/model.safetensors");
    REQUIRE(file.ok());
    const FileTensor& tensor = (*file)->tensors().at(name);
    REQUIRE(tensor.dtype == FileDType::kF32);
    offset = tensor.file_offset;
    count = tensor.bytes / 4;
  }
  std::fstream file(dir + "/model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(offset));
  for (uint64_t i = 0; i < count; ++i) {
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
}

const std::string kKinds[] = {"ernie-strict", "ernie-pairs", "qwen3-strict", "qwen3-pairs"};

}  // namespace

TEST_CASE("MoeTwin.SaysWhatTheDenseModelSays") {
  for (const std::string& kind : kKinds) {
    for (const int experts : {8, 12}) {
      CAPTURE(kind);
      CAPTURE(experts);
      ScratchDir dir;
      make_twin(dir / "twin", kind, experts);
      TestModel model = bring_up(dir / "twin", DType::kF32, best_cpu_isa());
      CHECK(model.model->config().moe.num_experts == experts);
      CHECK(model.model->config().moe.experts_per_token == 2);
      CHECK(texts(model) == reference_texts());
    }
  }
}

TEST_CASE("MoeTwin.Bf16ActivationsChangeLittle") {
  TestModel dense_model = bring_up(kLlama, DType::kBf16, best_cpu_isa());
  const auto wanted = texts(dense_model);
  for (const std::string& kind : kKinds) {
    CAPTURE(kind);
    ScratchDir dir;
    make_twin(dir / "twin", kind);
    TestModel model = bring_up(dir / "twin", DType::kBf16, best_cpu_isa());
    const auto found = texts(model);
    // A random model's near ties flip some texts somewhere; most of their tokens stay.
    size_t equal = 0, all = 0;
    for (size_t p = 0; p < wanted.size(); ++p) {
      for (size_t i = 0; i < kTokens; ++i, ++all) equal += found[p][i] == wanted[p][i];
    }
    CHECK(equal * 2 > all);
  }
}

TEST_CASE("MoeTwin.RoutingFaultsChangeTheText") {
  for (const std::string kind : {"ernie-strict", "qwen3-strict"}) {
    ScratchDir dir;
    make_twin(dir / "twin", kind);
    TestModel model = bring_up(dir / "twin", DType::kF32, best_cpu_isa());
    for (const NamedFault& fault : routing_faults(8)) {
      CAPTURE(kind);
      CAPTURE(fault.name);
      const auto spoilt = texts(model, fault.faults);
      size_t changed = 0;
      for (size_t p = 0; p < spoilt.size(); ++p) changed += spoilt[p] != reference_texts()[p];
      CHECK(changed >= 4);  // of 5 prompts
    }
  }
}

TEST_CASE("MoeTwin.AMissingRenormalisationChangesTheText") {
  for (const auto& [name, from, to] :
       {std::tuple{"ernie-strict", "\"moe_norm_min\":1e-12", "\"moe_norm_min\":1.0"},
        std::tuple{"qwen3-strict", "\"norm_topk_prob\":true", "\"norm_topk_prob\":false"}}) {
    const std::string kind = name;
    CAPTURE(kind);
    ScratchDir dir;
    make_twin(dir / "twin", kind);
    replace_in(dir / "twin/config.json", from, to);
    TestModel model = bring_up(dir / "twin", DType::kF32, best_cpu_isa());
    CHECK(texts(model) != reference_texts());
  }
}

TEST_CASE("MoeTwin.AnIgnoredCorrectionBiasChangesTheText") {
  for (const std::string kind : {"ernie-strict", "ernie-pairs"}) {
    CAPTURE(kind);
    ScratchDir dir;
    const TwinReport report = make_twin(dir / "twin", kind);
    CHECK(report.poison_wins > 0.15);
    CHECK(report.least_weight_sum >= 5e-4);
    for (const char* layer : {"1", "2"}) {
      overwrite_tensor(
          dir / "twin",
          std::string("model.layers.") + layer + ".mlp.moe_statics.e_score_correction_bias",
          0.0f);
    }
    TestModel model = bring_up(dir / "twin", DType::kF32, best_cpu_isa());
    const auto spoilt = texts(model);
    for (size_t p = 0; p < spoilt.size(); ++p) CHECK(spoilt[p] != reference_texts()[p]);
  }
}

TEST_CASE("MoeTwin.ExpertsShareTheWorkAndPoisonGetsNone") {
  for (const std::string kind : {"ernie-strict", "qwen3-strict"}) {
    CAPTURE(kind);
    ScratchDir dir;
    const TwinReport report = make_twin(dir / "twin", kind);
    CHECK(report.tokens == 256);
    CHECK(report.least_share >= 0.07);
    CHECK(report.largest_share <= 0.28);
    TestModel model = bring_up(dir / "twin", DType::kF32, best_cpu_isa());
    std::map<int32_t, int64_t> chosen;
    int64_t all = 0;
    texts(model, {.look = [&](const TensorView& ids) {
            for (int64_t i = 0; i < ids.elements(); ++i, ++all) ++chosen[ids.as<int32_t>()[i]];
            for (int64_t t = 0; t < ids.rows(); ++t) {  // always the two of a pair
              CHECK(ids.row<int32_t>(t)[0] % 2 == 0);
              CHECK(ids.row<int32_t>(t)[1] == ids.row<int32_t>(t)[0] + 1);
            }
          }});
    const bool ernie = kind == "ernie-strict";
    CHECK(chosen.size() == (ernie ? 6 : 8));
    CHECK(!(ernie && (chosen.contains(2) || chosen.contains(3))));
    for (const auto& of_expert : chosen) {
      CAPTURE(of_expert.first);
      CHECK(static_cast<double>(of_expert.second) / static_cast<double>(all) > 0.03);
    }
  }
}

TEST_CASE("MoeTwin.IsTheSameEveryTimeAndForAnyNumberOfThreadsAndShards") {
  ScratchDir dir;
  make_twin(dir / "one", "ernie-strict", 8, 1);
  make_twin(dir / "two", "ernie-strict", 8, 3);
  const auto one = read_file(dir / "one/model.safetensors", 64 << 20);
  const auto two = read_file(dir / "two/model.safetensors", 64 << 20);
  REQUIRE(one.ok());
  REQUIRE(two.ok());
  CHECK(*one == *two);

  TwinOptions options;
  options.shards = 3;
  REQUIRE(convert_moe_twin(kLlama, dir / "shards", options).ok());
  const auto whole = open_checkpoint(dir / "one");
  const auto sharded = open_checkpoint(dir / "shards");
  REQUIRE(sharded.ok());
  const std::vector<int64_t> shape = {144, 128};
  for (const char* name : {"model.layers.1.mlp.experts.0.down_proj.weight",
                           "model.layers.2.mlp.experts.7.down_proj.weight"}) {
    const auto a = (*whole)->claim(name, shape), b = (*sharded)->claim(name, shape);
    REQUIRE(a.ok());
    REQUIRE(b.ok());
    CHECK(std::memcmp(a->view.data, b->view.data, 144 * 128 * 2) == 0);
  }
}

TEST_CASE("MoeTwin.HasErniesNamesShapesAndConfiguration") {
  ScratchDir dir;
  make_twin(dir / "twin", "ernie-strict");
  const auto file = SafetensorsFile::open(dir / "twin/model.safetensors");
  REQUIRE(file.ok());
  const auto shape = [&](const std::string& name) {
    const auto it = (*file)->tensors().find(name);
    return it == (*file)->tensors().end() ? std::vector<int64_t>{} : it->second.shape;
  };
  using Shape = std::vector<int64_t>;
  CHECK(shape("model.layers.0.mlp.gate_proj.weight") == Shape{256, 144});
  CHECK(shape("model.layers.1.mlp.gate_proj.weight").empty());
  CHECK(shape("model.layers.1.mlp.gate.weight") == Shape{8, 144});
  CHECK(shape("model.layers.1.mlp.moe_statics.e_score_correction_bias") == Shape{1, 8});
  CHECK(shape("model.layers.1.mlp.shared_experts.up_proj.weight") == Shape{128, 144});
  CHECK(shape("model.layers.2.mlp.experts.7.gate_proj.weight") == Shape{128, 144});
  CHECK(shape("model.layers.2.mlp.experts.3.down_proj.weight") == Shape{144, 128});
  CHECK(shape("lm_head.weight").empty());
  const auto config = read_file(dir / "twin/config.json", 1 << 20);
  REQUIRE(config.ok());
  for (const std::string part : {"\"architectures\":[\"Ernie4_5_MoeForCausalLM\"]",
                                 "\"model_type\":\"ernie4_5_moe\"",
                                 "\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":0",
                                 "\"moe_num_experts\":8",
                                 "\"moe_k\":2",
                                 "\"moe_intermediate_size\":128",
                                 "\"moe_num_shared_experts\":1",
                                 "\"moe_layer_start_index\":1",
                                 "\"moe_layer_end_index\":2",
                                 "\"moe_use_aux_free\":true",
                                 "\"use_bias\":false"}) {
    CAPTURE(part);
    CHECK(config->find(part) != std::string::npos);
  }
  CHECK(std::filesystem::exists(dir / "twin/generation_config.json"));
}

TEST_CASE("MoeTwin.RouterRowsAreSmallIntegersTimesAPowerOfTwoAcrossTheMean") {
  // Activations with a strong mean, as real ones have it.
  constexpr int64_t kHidden = 96, kRows = 400;
  std::vector<float> activations, mean(kHidden, 0.0f);
  Noise noise({5});
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t i = 0; i < kHidden; ++i) {
      activations.push_back(noise.normal() + static_cast<float>(i % 7));
      mean[static_cast<size_t>(i)] += activations.back() / kRows;
    }
  }
  const Router router =
      draw_router(activations, kHidden, {.num_pairs = 4, .poison_pair = 1, .seed = 9});
  for (int p = 0; p < 4; ++p) {
    double along = 0.0, length = 0.0;
    for (size_t i = 0; i < kHidden; ++i) {
      along += static_cast<double>(router.row(p)[i]) * mean[i];
      length += static_cast<double>(mean[i]) * mean[i];
      for (int other = 0; other < 4; ++other) {
        const float difference = 64.0f * (router.row(other)[i] - router.row(p)[i]);
        CHECK(bf16_to_f32(f32_to_bf16(difference)) == difference);
      }
    }
    CHECK(std::abs(along) < 0.35);  // of logits whose deviation is 1
  }
  double sum = 0.0;
  for (int p = 0; p < 4; ++p) sum += router.share[static_cast<size_t>(p)];
  CHECK(sum == doctest::Approx(1.0));
  CHECK(router.share[1] == 0.0);
}

TEST_CASE("MoeTwin.RefusesWhatItCannotMake") {
  ScratchDir dir;
  const auto message = [&](const std::string& from, TwinOptions options) {
    const auto report = convert_moe_twin(from, dir / "twin", options);
    REQUIRE(!report.ok());
    CHECK(!std::filesystem::exists(dir / "twin"));
    return report.status().message();
  };
  const auto contains = [](const std::string& text, std::string_view part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  contains(parse_twin("ernie").status().message(), "unknown twin 'ernie'; there are ernie-strict");
  contains(message(kLlama, {.experts = 7}), "7 experts; expected an even number from 6 to 512");
  contains(message(kLlama, {.experts = 4}), "from 6 to 512");
  contains(message(kLlama, {.family = TwinFamily::kQwen3, .experts = 2}), "from 4 to 512");
  contains(message(kLlama, {.shards = 100'000}), "100000 shards for");
  contains(message(dir / "nothing", {}), "config.json");
  contains(message(FLOTILLA_TEST_MODELS "/ernie45-moe", {}),
           "this one has the architecture Ernie4_5_MoeForCausalLM");

  const std::string copy = dir / "copy";
  const auto fresh_copy = [&] {
    std::filesystem::remove_all(copy);
    std::filesystem::copy(kLlama, copy);
    std::filesystem::permissions(copy + "/config.json", std::filesystem::perms(0644));
  };
  fresh_copy();
  replace_in(copy + "/config.json", "\"mlp_bias\": false", "\"mlp_bias\": true");
  contains(message(copy, {}), "this one has biases");
  fresh_copy();
  replace_in(copy + "/config.json", "\"rope_type\": \"default\"", "\"rope_type\": \"llama3\"");
  contains(message(copy, {}), "this one has rope scaling");
  fresh_copy();
  replace_in(copy + "/config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1");
  contains(message(copy, {}), "not part of the model");
  fresh_copy();
  replace_in(copy + "/config.json", "\"intermediate_size\": 256", "\"intermediate_size\": 255");
  contains(message(copy, {}), "[256, 144], config.json asks for [255, 144]");
  fresh_copy();
  std::ofstream(copy + "/tokenizer.json") << "{";
  contains(message(copy, {}), "tokenizer.json");
}

TEST_CASE("MoeTwin.ShapesFitTheModel") {
  ModelConfig c;
  c.num_layers = 1;
  c.intermediate_size = 1536;
  CHECK(twin_shape(c, {}).status().message().find("one layer") != std::string::npos);
  c.num_layers = 30;
  CHECK(twin_shape(c, {})->intermediate == 576);  // 512 rows, 2 guards
  CHECK(twin_shape(c, {.strict = false})->intermediate == 512);
  CHECK(twin_shape(c, {.family = TwinFamily::kQwen3})->intermediate == 832);
  c.intermediate_size = 4;
  CHECK(twin_shape(c, {}).status().message().find("too small") != std::string::npos);
}
