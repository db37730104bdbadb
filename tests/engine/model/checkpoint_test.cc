// Damaged, hostile and mismatched checkpoints: each refused by name, with what was expected and
// what was found.
#include "engine/model/checkpoint.h"

#include <doctest/doctest.h>

#include <cmath>

#include "engine/model/config.h"
#include "engine/model/safetensors.h"
#include "tests/fakes/safetensors_file.h"

using namespace flotilla;

namespace {

std::string header_error(const std::string& header, uint64_t data_bytes) {
  return parse_safetensors_header(header, data_bytes).status().message();
}

std::string open_error(const std::string& bytes) {
  TempDir dir;
  write_file(dir.path / "x.safetensors", bytes);
  const auto file = SafetensorsFile::open(dir.path / "x.safetensors");
  std::string message = file.status().message();
  const std::string prefix = (dir.path / "x.safetensors").string() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

RawTensor tensor(const std::string& name,
                 std::vector<int64_t> shape,
                 const std::string& dtype = "BF16") {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return {name,
          dtype,
          shape,
          std::string(static_cast<size_t>(n) * (dtype == "F32"   ? 4
                                                : dtype == "I64" ? 8
                                                                 : 2),
                      '\1')};
}

struct Dir : TempDir {
  explicit Dir(const std::vector<RawTensor>& tensors) {
    write_file(path / "model.safetensors", safetensors_bytes(tensors));
  }
};

}  // namespace

TEST_CASE("Safetensors.ReadsTensorsEmptyOnesAndMetadata") {
  const auto tensors = parse_safetensors_header(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"BF16","shape":[0,3],"data_offsets":[8,8]},"s":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}   )",
      16);
  REQUIRE_MESSAGE(tensors.ok(), tensors.status().message());
  CHECK(tensors->size() == 3);
  CHECK(tensors->at("s").shape.empty());
  CHECK(tensors->at("s").file_offset == 8);
}

TEST_CASE("Safetensors.RefusesHostileHeadersByName") {
  CHECK(header_error("", 0) == "the header does not begin with '{'");
  CHECK(header_error("[]", 0) == "the header does not begin with '{'");
  CHECK(header_error("{", 0).starts_with("the header is no JSON object of depth ≤ 3"));
  CHECK(header_error(R"({"a":{"dtype":{"x":{"y":[[[]]]}}}})", 0)
            .starts_with("the header is no JSON object of depth ≤ 3"));
  CHECK(header_error(R"({"a":1})", 0) == "entry 'a' is no object");
  CHECK(header_error(R"({"__metadata__":{"x":1}})", 0) == "__metadata__ 'x' is no string");
  CHECK(header_error(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4) == "tensor 'a': no dtype");
  CHECK(header_error(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4) == "tensor 'a': no shape");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1]}})", 4) == "tensor 'a': no data_offsets");
  CHECK(header_error(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4) ==
        "tensor 'a': unknown dtype 'F31'");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4) ==
        "tensor 'a': a dimension is no whole number ≥ 0");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4) ==
        "tensor 'a': a dimension is no whole number ≥ 0");
  CHECK(header_error(
            R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4) ==
        "tensor 'a': the shape overflows");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
                     4) == "tensor 'a': more than 8 dimensions");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4) ==
        "tensor 'a': data_offsets are not two whole numbers ≥ 0");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4) ==
        "tensor 'a': data_offsets [4, 0] do not lie in the 4 bytes of data");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 4) ==
        "tensor 'a': data_offsets [0, 8] do not lie in the 4 bytes of data");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4) ==
        "tensor 'a': has 4 bytes, its shape and type need 8");
  CHECK(
      header_error(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          8) == "tensor 'a' appears twice");
  CHECK(
      header_error(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
          12) == "tensor 'b' begins at byte 4, the one before ends at 8: overlap or hole");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8) ==
        "tensor 'a' begins at byte 4, the one before ends at 0: overlap or hole");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8) ==
        "the tensors end at byte 4, the data at 8 (file cut short, or something behind it)");
  CHECK(header_error("{\"" + std::string(600, 'n') +
                         R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                     4)
            .ends_with("is too long"));
  CHECK(header_error("{\"bad\xff\":{}}", 0).starts_with("the header is no JSON"));
}

TEST_CASE("Safetensors.RefusesDamagedFiles") {
  CHECK(open_error("1234") == "shorter than the 8 bytes that give the header's length");
  CHECK(open_error(std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8) + "{}") ==
        "header of 18446744073709551615 bytes, the limit is 100,000,000");
  CHECK(open_error(std::string("\x10\0\0\0\0\0\0\0", 8) + "{}") ==
        "header of 16 bytes in a file of 10");
  CHECK(open_error(safetensors_bytes({tensor("a", {2})}) + "x")
            .ends_with("(file cut short, or something behind it)"));
  CHECK(SafetensorsFile::open("/proc").status().message().ends_with("no regular file"));
  CHECK(SafetensorsFile::open("/nonexistent.safetensors").status().code() == StatusCode::kNotFound);
}

TEST_CASE("Checkpoint.NamesMissingMisshapenWrongTypedAndUnusedTensors") {
  Dir dir({tensor("a", {2, 3}), tensor("i", {2}, "I64"), tensor("x", {1}), tensor("y", {1})});
  const auto opened = open_checkpoint(dir.path);
  REQUIRE(opened.ok());
  TensorSource& source = **opened;
  const std::string where = dir.path.string() + ": ";
  CHECK(source.claim("b", {2, 3}).status().message() == where + "tensor 'b' [2, 3] is missing");
  CHECK(source.claim("a", {3, 2}).status().message() ==
        where + "tensor 'a' has shape [2, 3], config.json asks for [3, 2]");
  CHECK(source.claim("i", {2}).status().message().starts_with(
      where + "tensor 'i' has type I64, expected one of F32"));
  CHECK(source.claim("a", {2, 3}).ok());
  CHECK(source.bytes_read() == 12);
  CHECK(source.check_all_claimed().message() ==
        where + "3 tensors are not part of the model that config.json describes: i, x, y");
  source.ignore_prefix("i");
  CHECK(source.claim_unread("x", {1}).ok());
  CHECK(source.claim("y", {1}).ok());
  CHECK(source.check_all_claimed().ok());
  CHECK(source.bytes_read() == 14);  // x was never read
}

TEST_CASE("Checkpoint.U16IsBf16AndI8IsFp8") {
  Dir dir({tensor("u", {2}, "U16"), {"q", "I8", {4}, "\x38\x40\xC0\x7E"}});
  const auto source = open_checkpoint(dir.path);
  REQUIRE(source.ok());
  CHECK((*source)->claim("u", {2})->view.dtype == DType::kBf16);
  const TensorView q = (*source)->claim("q", {4})->view;
  CHECK(q.dtype == DType::kF8E4M3);
  const float wanted[] = {1.0f, 2.0f, -2.0f, 448.0f};
  for (int i = 0; i < 4; ++i) CHECK(f8e4m3_to_f32(q.as<uint8_t>()[i]) == wanted[i]);
}

TEST_CASE("Checkpoint.IndexAndShardsMustAgree") {
  const auto message =
      [](const std::string& index,
         const std::vector<std::pair<std::string, std::vector<RawTensor>>>& shards) {
        TempDir dir;
        write_file(dir.path / "model.safetensors.index.json", index);
        for (const auto& [name, tensors] : shards)
          write_file(dir.path / name, safetensors_bytes(tensors));
        std::string text = open_checkpoint(dir.path).status().message();
        for (size_t at; (at = text.find(dir.path.string() + "/")) != text.npos;)
          text.erase(at, dir.path.string().size() + 1);
        return text;
      };
  const std::string both = R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})";
  CHECK(message(both,
                {{"1.safetensors", {tensor("a", {1})}}, {"2.safetensors", {tensor("b", {1})}}}) ==
        "");
  CHECK(message(both, {{"1.safetensors", {tensor("a", {1})}}})
            .starts_with(
                "model.safetensors.index.json names the shard 2.safetensors, which is missing"));
  CHECK(message(both,
                {{"1.safetensors", {tensor("b", {1})}}, {"2.safetensors", {tensor("a", {1})}}}) ==
        "model.safetensors.index.json: tensor 'a' is not in 1.safetensors, where the index says");
  CHECK(message(both,
                {{"1.safetensors", {tensor("a", {1})}},
                 {"2.safetensors", {tensor("b", {1}), tensor("c", {1})}}}) ==
        "model.safetensors.index.json: 2.safetensors holds tensor 'c', which the index does not "
        "name");
  CHECK(message(both,
                {{"1.safetensors", {tensor("a", {1})}},
                 {"2.safetensors", {tensor("a", {1}), tensor("b", {1})}}})
            .ends_with("tensor 'a' is in more than one file"));
  CHECK(message(R"({"weight_map":{"a":"../1.safetensors"}})", {}) ==
        "model.safetensors.index.json: '../1.safetensors' is no plain file name");
  CHECK(message(R"({"weight_map":{"a":1}})", {}) ==
        "model.safetensors.index.json: the file of tensor 'a' is no string");
  CHECK(message(R"({"weights":{}})", {}) == "model.safetensors.index.json: no object 'weight_map'");
  CHECK(message("nonsense", {}) == "model.safetensors.index.json: no object 'weight_map'");
  TempDir empty;
  CHECK(open_checkpoint(empty.path)
            .status()
            .message()
            .ends_with("holds neither model.safetensors nor model.safetensors.index.json"));
}

TEST_CASE("DummySource.IsTheSameForASeedAndHasUnitNormsZeroBiasesAndAWidthOf0.02") {
  const auto a = make_dummy_source(1), b = make_dummy_source(1), c = make_dummy_source(2);
  const auto values = [](TensorSource& s, const std::string& name) {
    const HostTensor t = s.claim(name, {100, 100}).value();
    std::vector<float> out;
    for (int64_t i = 0; i < 10000; ++i) out.push_back(bf16_to_f32(t.view.as<uint16_t>()[i]));
    return out;
  };
  CHECK(values(*a, "w") == values(*b, "w"));
  CHECK(values(*a, "w") != values(*c, "w"));
  CHECK(values(*a, "w") != values(*a, "v"));
  double sum = 0, squares = 0;
  for (const float v : values(*a, "w")) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  CHECK(std::abs(sum / 10000) < 0.001);
  CHECK(std::abs(std::sqrt(squares / 10000) - 0.02) < 0.001);
  CHECK(values(*a, "x.input_layernorm.weight") == std::vector<float>(10000, 1.0f));
  CHECK(values(*a, "x.e_score_correction_bias") == std::vector<float>(10000, 0.0f));
  CHECK(a->digest_material() != c->digest_material());
}

TEST_CASE("ModelConfig.NamesWhatIsMissingWrongOrNotInThisVersion") {
  const std::string base =
      R"("hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"vocab_size":10,"intermediate_size":8)";
  const auto error = [&](const std::string& text) {
    return parse_model_config(text).status().message();
  };
  const auto with = [&](const std::string& more) {
    return error("{\"architectures\":[\"LlamaForCausalLM\"]," + base + more + "}");
  };
  CHECK(with("") == "");
  CHECK(error("[]").starts_with("no JSON object"));
  CHECK(error("{}") ==
        "no 'architectures' list with a name: this file describes no causal language model");
  CHECK(error(R"({"architectures":["GPT2LMHeadModel"]})")
            .starts_with("architecture 'GPT2LMHeadModel'; this version serves Ernie4_5_Moe"));
  CHECK(error(R"({"architectures":["LlamaForCausalLM"]})") == "num_hidden_layers is missing");
  CHECK(with(R"(,"num_key_value_heads":3)") == "num_key_value_heads is 3, allowed are 1 to 2");
  CHECK(with(R"(,"head_dim":7)") == "head_dim 7 is odd");
  CHECK(with(R"(,"head_dim":"x")") == "head_dim is no whole number");
  CHECK(with(R"(,"hidden_act":"gelu")") == "hidden_act 'gelu' (this version has silu)");
  CHECK(with(R"(,"rope_scaling":{"rope_type":"yarn"})") ==
        "rope_scaling of type 'yarn' (this version has default and llama3)");
  CHECK(with(R"(,"rope_theta":0)").starts_with("rope_theta is 0.000000, allowed are 1.0"));
  CHECK(with(R"(,"quantization_config":{"quant_method":"gptq"})")
            .starts_with("quantization_config (method 'gptq'"));
  CHECK(with(R"(,"tie_word_embeddings":1)") == "tie_word_embeddings is neither true nor false");
  CHECK(error("{\"architectures\":[\"Ernie4_5_MoeForCausalLM\"]," + base +
              R"(,"moe_num_experts":[64,64]})") ==
        "moe_num_experts is a list (a vision-language model); this version serves text models");
  CHECK(error("{\"architectures\":[\"Ernie4_5_MoeForCausalLM\"]," + base +
              R"(,"moe_num_experts":4,"moe_k":5,"moe_intermediate_size":4})") ==
        "moe_k is 5, allowed are 1 to 4");
  const auto tail = parse_model_config("{\"architectures\":[\"Ernie4_5ForCausalLM\"]," + base +
                                       ",\"remove_tail_layer\":true,\"eos_token_id\":[2,3]}");
  CHECK(tail->num_layers == 1);
  CHECK(tail->eos_token_ids == std::vector<TokenId>{2, 3});
  CHECK(tail->rope_theta == 500000.0);
}
