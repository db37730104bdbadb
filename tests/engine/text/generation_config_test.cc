#include "engine/text/generation_config.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <random>

namespace flotilla {
namespace {

class ModelDir {
 public:
  ModelDir()
      : path_(std::filesystem::temp_directory_path() /
              ("flotilla-" + std::to_string(std::random_device{}()))) {
    std::filesystem::create_directory(path_);
  }
  ~ModelDir() { std::filesystem::remove_all(path_); }

  ModelDir& with(const char* name, const char* text) {
    std::ofstream(path_ / name) << text;
    return *this;
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::optional<TokenId> id_of(std::string_view token) {
  if (token == "</s>") return 2;
  if (token == "<|im_end|>") return 9;
  return std::nullopt;
}

TEST_CASE("ReadGenerationDefaults.TakesWhatTheFileSays") {
  ModelDir dir;
  dir.with("generation_config.json",
           R"({"do_sample": true, "temperature": 0.8, "top_p": 0.7, "top_k": 20, "min_p": 0.05,
               "repetition_penalty": 1.1, "max_new_tokens": 512, "eos_token_id": 2})");
  const GenerationDefaults d = read_generation_defaults(dir.path()).value();
  CHECK(d.temperature == 0.8);
  CHECK(d.top_p == 0.7);
  CHECK(d.top_k == 20);
  CHECK(d.min_p == 0.05);
  CHECK(d.repetition_penalty == 1.1);
  CHECK(d.max_new_tokens == 512);
}

TEST_CASE("ReadGenerationDefaults.SaysNothingWithoutAFile") {
  ModelDir dir;
  const GenerationDefaults d = read_generation_defaults(dir.path()).value();
  CHECK_FALSE(d.temperature);
  CHECK_FALSE(d.top_p);
  CHECK_FALSE(d.max_new_tokens);
}

TEST_CASE("ReadGenerationDefaults.IsGreedyWhenTheFileSaysNotToSample") {
  ModelDir dir;
  dir.with("generation_config.json", R"({"do_sample": false, "temperature": 0.8})");
  CHECK(read_generation_defaults(dir.path()).value().temperature == 0.0);
}

TEST_CASE("ReadGenerationDefaults.NamesFileAndFieldOfABadValue") {
  for (const auto& [text, field] : {std::pair{R"({"temperature": -1})", "temperature"},
                                    {R"({"temperature": "hot"})", "temperature"},
                                    {R"({"top_p": 2})", "top_p"},
                                    {R"({"min_p": -0.5})", "min_p"},
                                    {R"({"top_k": 1.5})", "top_k"},
                                    {R"({"repetition_penalty": 0})", "repetition_penalty"},
                                    {R"({"max_new_tokens": 0})", "max_new_tokens"},
                                    {R"({"do_sample": 1})", "do_sample"},
                                    {R"([])", "not a JSON object"},
                                    {R"({)", "not a JSON object"}}) {
    CAPTURE(text);
    ModelDir dir;
    dir.with("generation_config.json", text);
    const Status status = read_generation_defaults(dir.path()).status();
    CHECK(status.code() == StatusCode::kInvalidArgument);
    CHECK(status.message().find("generation_config.json") != std::string::npos);
    CHECK(status.message().find(field) != std::string::npos);
  }
}

TEST_CASE("ReadEosTokenIds.JoinsConfigGenerationConfigAndTokenizer") {
  ModelDir dir;
  dir.with("config.json", R"({"eos_token_id": 5})")
      .with("generation_config.json", R"({"eos_token_id": [7, 5]})")
      .with("tokenizer_config.json",
            R"({"eos_token": {"content": "<|im_end|>", "lstrip": false}})");
  CHECK(read_eos_token_ids(dir.path(), id_of).value() == std::vector<TokenId>{5, 7, 9});
}

TEST_CASE("ReadEosTokenIds.IsContentWithFilesThatSayNothing") {
  ModelDir dir;
  CHECK(read_eos_token_ids(dir.path(), id_of).value().empty());
  dir.with("config.json", R"({"eos_token_id": null})")
      .with("tokenizer_config.json", R"({"eos_token": "</s>"})");
  CHECK(read_eos_token_ids(dir.path(), id_of).value() == std::vector<TokenId>{2});
}

TEST_CASE("ReadEosTokenIds.NamesFileAndFieldOfABadValue") {
  for (const auto& [name, text] : {std::pair{"config.json", R"({"eos_token_id": "x"})"},
                                   {"config.json", R"({"eos_token_id": -1})"},
                                   {"generation_config.json", R"({"eos_token_id": [1, 2.5]})"},
                                   {"tokenizer_config.json", R"({"eos_token": 5})"},
                                   {"tokenizer_config.json", R"({"eos_token": "<nowhere>"})"}}) {
    CAPTURE(text);
    ModelDir dir;
    dir.with(name, text);
    const Status status = read_eos_token_ids(dir.path(), id_of).status();
    CHECK(status.code() == StatusCode::kInvalidArgument);
    CHECK(status.message().find(name) != std::string::npos);
    CHECK(status.message().find("eos_token") != std::string::npos);
  }
}

}  // namespace
}  // namespace flotilla
