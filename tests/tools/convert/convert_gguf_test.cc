// From a GGUF file to a folder that the engine loads.
#include <doctest/doctest.h>

#include <simdjson.h>

#include <cmath>
#include <cstring>

#include "common/fd.h"
#include "engine/model/model.h"
#include "engine/model/safetensors.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/tools/convert/scratch_dir.h"
#include "tests/tools/convert/tiny_llama.h"
#include "tools/convert/convert.h"
#include "tools/convert/output_dir.h"

using namespace flotilla;
using namespace flotilla::convert;

namespace {

using B = GgufBuilder;

std::string file_text(const std::string& path) {
  auto text = read_file(path, 64 << 20);
  REQUIRE_MESSAGE(text.ok(), text.status().message());
  return *text;
}

// The folder that the file becomes; it must.
std::string converted(const ScratchDir& dir, const GgufBuilder& b, GgufOptions options = {}) {
  const Status status = convert_gguf(dir.write("model.gguf", b.build()), dir / "out", options);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return dir / "out";
}

void check_refused(const GgufBuilder& b, std::string_view part) {
  ScratchDir dir;
  const Status status = convert_gguf(dir.write("model.gguf", b.build()), dir / "out", {});
  REQUIRE(!status.ok());
  CAPTURE(status.message());
  CHECK(status.message().find(part) != std::string::npos);
  CHECK(dir.entries() == 1);  // nothing but the GGUF file
}

void check_bf16(const SafetensorsFile& file, const std::string& name, std::vector<float> wanted) {
  CAPTURE(name);
  const FileTensor& tensor = file.tensors().at(name);
  CHECK(tensor.dtype == FileDType::kBf16);
  REQUIRE(tensor.bytes == wanted.size() * 2);
  std::vector<uint16_t> found(wanted.size());
  std::memcpy(found.data(), tensor.data, tensor.bytes);
  for (size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == f32_to_bf16(wanted[i]));
}

}  // namespace

TEST_CASE("ConvertGguf.WritesAFolderThatTheEngineLoads") {
  ScratchDir dir;
  const std::string out = converted(dir, TinyLlama::builder(), {.threads = 2});
  auto files = open_model({.dir = out});
  REQUIRE_MESSAGE(files.ok(), files.status().message());
  const ModelConfig c = files->config;
  CHECK(c.num_layers == 1);
  CHECK(c.hidden_size == 64);
  CHECK(c.num_heads == 4);
  CHECK(c.num_kv_heads == 2);
  CHECK(c.head_dim == 16);
  CHECK(c.intermediate_size == 96);
  CHECK(c.vocab_size == 262);
  CHECK(c.max_position == 128);
  CHECK(c.rope_theta == 100000.0);
  CHECK(c.rms_norm_eps == 1e-5f);
  CHECK(c.tie_word_embeddings);
  CHECK(c.eos_token_ids == std::vector<TokenId>{0});
  CHECK(file_text(out + "/config.json").find("\"rms_norm_eps\":1e-05,") != std::string::npos);
  CHECK(file_text(out + "/generation_config.json").find("\"eos_token_id\":0") != std::string::npos);

  const auto device = make_cpu_device({});
  const auto model = Model::load(std::move(*files), *device, {});
  CHECK_MESSAGE(model.ok(), model.status().message());

  const auto tokenizer = Tokenizer::load(out);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  const auto ids = (*tokenizer)->encode("a <|end|>é12");
  REQUIRE(ids.ok());
  CHECK(ids->size() == 7);
  CHECK((*tokenizer)->decode(*ids, false) == "a <|end|>é12");
  CHECK((*tokenizer)->eos_id() == 0);
  const auto chat = ChatTemplate::load(out, (*tokenizer)->config());
  REQUIRE(chat.ok());
  CHECK((*chat)->render({.messages_json = R"([{"role":"user","content":"hi"}])"}).value() ==
        "user: hi");
}

TEST_CASE("ConvertGguf.UndoesTheInterleavingOfQueriesAndKeysOnly") {
  ScratchDir dir;
  const std::string out = converted(dir, TinyLlama::builder());
  const auto file = SafetensorsFile::open(out + "/model.safetensors");
  REQUIRE(file.ok());
  using T = TinyLlama;
  const auto half_split = [](const std::vector<float>& rows) {
    std::vector<float> out;
    const size_t heads = rows.size() / T::kHidden / T::kHeadDim;
    for (size_t h = 0; h < heads; ++h) {
      for (const size_t odd : {0u, 1u}) {
        for (size_t j = 0; j < T::kHeadDim / 2; ++j) {
          const auto row =
              rows.begin() + static_cast<int64_t>((h * T::kHeadDim + 2 * j + odd) * T::kHidden);
          out.insert(out.end(), row, row + T::kHidden);
        }
      }
    }
    return out;
  };
  const auto values = [](size_t rows, uint32_t salt) { return T::values(rows * T::kHidden, salt); };
  const std::string layer = "model.layers.0.";
  check_bf16(**file, "model.embed_tokens.weight", values(T::kVocab, 1));
  check_bf16(**file, "model.norm.weight", values(1, 2));
  check_bf16(**file, layer + "input_layernorm.weight", values(1, 3));
  check_bf16(**file, layer + "self_attn.q_proj.weight", half_split(values(64, 4)));
  check_bf16(**file, layer + "self_attn.k_proj.weight", half_split(values(32, 5)));
  check_bf16(**file, layer + "self_attn.v_proj.weight", values(32, 6));
  check_bf16(**file, layer + "self_attn.o_proj.weight", values(64, 7));
  check_bf16(**file, layer + "post_attention_layernorm.weight", values(1, 8));
  check_bf16(**file, layer + "mlp.gate_proj.weight", values(96, 9));
  check_bf16(**file, layer + "mlp.up_proj.weight", values(96, 10));
  check_bf16(**file, layer + "mlp.down_proj.weight", values(96, 11));
  CHECK((*file)->tensors().size() == 11);
}

TEST_CASE("ConvertGguf.WritesFloatsIfAsked") {
  ScratchDir dir;
  const std::string out = converted(dir, TinyLlama::builder(), {.dtype = DType::kF32});
  const auto file = SafetensorsFile::open(out + "/model.safetensors");
  REQUIRE(file.ok());
  const FileTensor& tensor = (*file)->tensors().at("model.layers.0.mlp.up_proj.weight");
  CHECK(tensor.dtype == FileDType::kF32);
  const std::vector<float> wanted = TinyLlama::values(96 * 64, 10);
  CHECK(std::memcmp(tensor.data, wanted.data(), tensor.bytes) == 0);
  CHECK(file_text(out + "/config.json").find("\"torch_dtype\":\"float32\"") != std::string::npos);
}

TEST_CASE("ConvertGguf.DividesWeightsIntoShardsWithAnIndex") {
  ScratchDir dir;
  for (const int shards : {2, 3, 11}) {
    std::filesystem::remove_all(dir / "out");
    const std::string out = converted(dir, TinyLlama::builder(), {.shards = shards});
    CAPTURE(shards);
    const auto checkpoint = open_checkpoint(out);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    CHECK((*checkpoint)->has("model.layers.0.mlp.down_proj.weight"));
    simdjson::dom::parser parser;
    const simdjson::padded_string index(file_text(out + "/model.safetensors.index.json"));
    const simdjson::dom::element root = parser.parse(index);
    CHECK(int64_t{root["metadata"]["total_size"]} == 2 * 47'680);
    CHECK(root["weight_map"].get_object().size() == 11);
  }
  std::filesystem::remove_all(dir / "out");
  const Status status = convert_gguf(
      dir.write("model.gguf", TinyLlama::builder().build()), dir / "out", {.shards = 12});
  CHECK(status.message().find("12 shards for 11 tensors") != std::string::npos);
}

TEST_CASE("ConvertGguf.AnUntiedHeadAndAnAddedBosComeAlong") {
  ScratchDir dir;
  GgufBuilder b = TinyLlama::builder();
  b.f32_tensor("output.weight", {64, 262}, TinyLlama::values(262 * 64, 12))
      .boolean("tokenizer.ggml.add_bos_token", true)
      .u32("tokenizer.ggml.eot_token_id", 5);
  const std::string out = converted(dir, b);
  const auto files = open_model({.dir = out});
  REQUIRE(files.ok());
  CHECK(!files->config.tie_word_embeddings);
  CHECK(files->config.eos_token_ids == std::vector<TokenId>{0, 5});
  const auto tokenizer = Tokenizer::load(out);
  REQUIRE(tokenizer.ok());
  CHECK((*tokenizer)->encode("a", {.add_special_tokens = true})->front() == 0);
  CHECK((*tokenizer)->encode("a")->front() != 0);
}

TEST_CASE("ConvertGguf.KnowsTheFrequenciesOfLlama31And32") {
  const auto divisors = [](double factor) {
    std::vector<float> out;
    for (int j = 0; j < 8; ++j) {
      const double wavelength = 2 * M_PI * std::pow(500000.0, j / 8.0);
      const double smooth = (8192 / wavelength - 1) / 3;
      out.push_back(static_cast<float>(wavelength > 8192   ? factor
                                       : wavelength < 2048 ? 1.0
                                                           : 1 / ((1 - smooth) / factor + smooth)));
    }
    return out;
  };
  const auto file = [&](const std::vector<float>& values) {
    GgufBuilder b = TinyLlama::builder();
    b.remove_entry("llama.rope.freq_base").f32("llama.rope.freq_base", 500000.0f);
    b.f32_tensor("rope_freqs.weight", {values.size()}, values);
    return b;
  };
  for (const double factor : {8.0, 32.0}) {
    ScratchDir dir;
    const auto config = load_model_config(converted(dir, file(divisors(factor))));
    REQUIRE(config.ok());
    REQUIRE(config->rope_scaling.has_value());
    CHECK(config->rope_scaling->factor == factor);
  }
  check_refused(file(divisors(16.0)), "'rope_freqs.weight' is not that of Llama 3.1");
  check_refused(file({1.0f}), "'rope_freqs.weight' is no F32 vector");
}

TEST_CASE("ConvertGguf.PreTokenizersSplitAsTheirNamesSay") {
  const auto pieces = [](const char* pre, const char* text) {
    ScratchDir dir;
    GgufBuilder b = TinyLlama::builder();
    b.remove_entry("tokenizer.ggml.pre").string("tokenizer.ggml.pre", pre);
    // One token for "12" beside those of bytes: it is found where digits may stay together.
    std::vector<std::string> tokens = {"<|end|>"};
    for (std::string& token : TinyLlama::byte_tokens()) tokens.push_back(std::move(token));
    tokens.push_back("12");
    std::vector<int32_t> types(tokens.size(), 1);
    types[0] = 3;
    b.remove_entry("tokenizer.ggml.tokens").strings("tokenizer.ggml.tokens", tokens);
    b.remove_entry("tokenizer.ggml.token_type").i32s("tokenizer.ggml.token_type", types);
    b.remove_entry("tokenizer.ggml.merges").strings("tokenizer.ggml.merges", {"1 2"});
    const auto tokenizer = Tokenizer::load(converted(dir, b));
    REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
    return (*tokenizer)->encode(text)->size();
  };
  CHECK(pieces("smollm", "12") == 2);
  CHECK(pieces("gpt-2", "12") == 1);
  CHECK(pieces("llama-bpe", "12") == 1);
  CHECK(pieces("llama-bpe", "99912") == 4);  // 999|12
  CHECK(pieces("gpt-2", "99912") == 4);
  CHECK(pieces("llama-bpe", "9912") == 4);  // 991|2
}

TEST_CASE("ConvertGguf.RefusesByName") {
  using T = TinyLlama;
  const auto changed = [](std::string_view key) {
    GgufBuilder b = T::builder();
    b.remove_entry(key);
    return b;
  };
  const auto u32 = [&](std::string_view key, uint32_t value) {
    return changed(key).u32(key, value);
  };
  SUBCASE("what is no Llama") {
    check_refused(changed("general.architecture"), "architecture ''");
    check_refused(changed("general.architecture").string("general.architecture", "qwen2"),
                  "architecture 'qwen2'");
    check_refused(u32("llama.expert_count", 8), "llama.expert_count");
    check_refused(changed("").string("llama.rope.scaling.type", "yarn"),
                  "llama.rope.scaling.type 'yarn'");
    check_refused(u32("llama.rope.dimension_count", 8), "rope.dimension_count 8");
    check_refused(u32("llama.attention.value_length", 8), "attention.value_length 8");
  }
  SUBCASE("missing or wrong metadata") {
    check_refused(changed("llama.block_count"), "'llama.block_count' is missing");
    check_refused(u32("llama.block_count", 0), "'llama.block_count' is 0, allowed are 1 to 4096");
    check_refused(changed("llama.block_count").string("llama.block_count", "1"),
                  "'llama.block_count' is not a whole number");
    check_refused(changed("llama.attention.layer_norm_rms_epsilon"), "rms_epsilon' is missing");
    check_refused(changed("llama.attention.layer_norm_rms_epsilon")
                      .f32("llama.attention.layer_norm_rms_epsilon", 2.0f),
                  "rms_epsilon' is 2");
    check_refused(u32("llama.attention.head_count_kv", 3), "no multiple of head_count_kv 3");
    check_refused(
        u32("llama.attention.head_count", 5).remove_entry("llama.attention.head_count_kv"),
        "no multiple of attention.head_count");
    check_refused(u32("llama.attention.key_length", 15), "heads of 15 values");
    check_refused(u32("tokenizer.ggml.eos_token_id", 300), "eos_token_id' is 300");
  }
  SUBCASE("tensors") {
    for (const char* name : {"token_embd.weight", "blk.0.attn_k.weight", "output_norm.weight"}) {
      GgufBuilder b = T::builder();
      b.remove_tensor(name);
      check_refused(b, "tensor '" + std::string(name) + "' is missing");
    }
    GgufBuilder wrong_shape = T::builder();
    wrong_shape.remove_tensor("blk.0.attn_k.weight")
        .f32_tensor("blk.0.attn_k.weight", {32, 64}, T::values(64 * 32, 5));
    check_refused(
        wrong_shape,
        "tensor 'blk.0.attn_k.weight' has shape [64, 32], the metadata asks for [32, 64]");
    GgufBuilder more = T::builder();
    more.f32_tensor("blk.0.attn_q.bias", {64}, T::values(64, 20));
    check_refused(more, "tensor 'blk.0.attn_q.bias' has no place");
  }
  SUBCASE("tokenizer") {
    check_refused(changed("tokenizer.ggml.model").string("tokenizer.ggml.model", "llama"),
                  "tokenizer.ggml.model 'llama'");
    check_refused(changed("tokenizer.ggml.pre"), "tokenizer.ggml.pre ''; converted are smollm");
    check_refused(changed("tokenizer.ggml.pre").string("tokenizer.ggml.pre", "tekken"),
                  "tokenizer.ggml.pre 'tekken'");
    check_refused(changed("tokenizer.ggml.tokens"), "'tokenizer.ggml.tokens' is missing");
    check_refused(changed("tokenizer.ggml.tokens").u32("tokenizer.ggml.tokens", 1),
                  "'tokenizer.ggml.tokens' is not a list of strings");
    check_refused(changed("tokenizer.ggml.token_type").i32s("tokenizer.ggml.token_type", {1}),
                  "token_type has 1 entries for 257 tokens");
    check_refused(changed("tokenizer.ggml.merges").strings("tokenizer.ggml.merges", {"\xff a"}),
                  "merge '? a' is not valid UTF-8");
    check_refused(changed("tokenizer.ggml.merges").strings("tokenizer.ggml.merges", {"q zz"}),
                  "the file's tokenizer cannot be used");
    check_refused(changed("tokenizer.chat_template").string("tokenizer.chat_template", "\xff"),
                  "tokenizer.chat_template is not valid UTF-8");
    const auto tokens = [&](std::vector<std::string> list) {
      GgufBuilder b = changed("tokenizer.ggml.tokens");
      b.strings("tokenizer.ggml.tokens", list);
      b.remove_entry("tokenizer.ggml.token_type")
          .i32s("tokenizer.ggml.token_type", std::vector<int32_t>(list.size(), 1));
      return b;
    };
    check_refused(tokens({"a", "b", "a"}), "token 'a' appears twice, the second time as 2");
    check_refused(tokens({"a", "\xc3"}), "token 1 '?' is not valid UTF-8");
    check_refused(tokens(std::vector<std::string>(300, "x")),
                  "has 300 tokens, the embedding 262 rows");
    check_refused(
        changed("tokenizer.ggml.bos_token_id").boolean("tokenizer.ggml.add_bos_token", true),
        "add_bos_token or add_eos_token is true without the token's id");
  }
}

TEST_CASE("ConvertGguf.LeavesWhatIsThereAlone") {
  ScratchDir dir;
  const std::string gguf = dir.write("model.gguf", TinyLlama::builder().build());
  std::filesystem::create_directory(dir / "out");
  CHECK(convert_gguf(gguf, dir / "out/", {}).ok());  // empty: taken
  const Status again = convert_gguf(gguf, dir / "out", {});
  CHECK(again.code() == StatusCode::kFailedPrecondition);
  CHECK(again.message().find("is there already") != std::string::npos);
  CHECK(convert_gguf(gguf, gguf, {}).code() == StatusCode::kFailedPrecondition);
  const Status no_parent = convert_gguf(gguf, gguf + "/below", {});
  CHECK(no_parent.message().find("cannot make") != std::string::npos);
  CHECK(convert_gguf(gguf, dir / "a/b/out", {}).ok());
  CHECK(dir.entries() == 3);
}

TEST_CASE("OutputDir.IsGoneUnlessCommitted") {
  ScratchDir dir;
  {
    auto out = OutputDir::create(dir / "x");
    REQUIRE(out.ok());
    CHECK(out->write_file("f", "content").ok());
    CHECK(!out->write_file("no/folder", "content").ok());
    CHECK(!out->copy_file(dir / "nothing", "g").ok());
    CHECK(dir.entries() == 1);
  }
  CHECK(dir.entries() == 0);
}
