// A checkpoint with reference outputs, and a model brought up from it.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <simdjson.h>

#include "engine/kv_cache/kv_cache.h"
#include "engine/model/model.h"
#include "engine/model/safetensors.h"
#include "engine/parallel/local_exchange.h"
#include "kernels/cpu/cpu_device.h"

namespace flotilla {

struct ReferencePrompt {
  std::vector<TokenId> ids;
  std::vector<std::vector<float>> logits;  // of the last rows
  std::vector<TokenId> greedy;
  std::vector<double> margin;  // between the best and the second logit
};

struct Fixture {
  std::string name;
  std::string dir;
  std::vector<ReferencePrompt> prompts;
};

inline Fixture load_fixture(const std::string& dir) {
  Fixture fixture{.name = std::filesystem::path(dir).filename(), .dir = dir, .prompts = {}};
  auto file = SafetensorsFile::open(dir + "/reference.safetensors");
  REQUIRE_MESSAGE(file.ok(), file.status().message());
  simdjson::dom::parser parser;
  const simdjson::dom::array prompts = parser.load(dir + "/reference.json")["prompts"].get_array();
  size_t i = 0;
  for (const simdjson::dom::element prompt : prompts) {
    ReferencePrompt p;
    const std::string key = "p" + std::to_string(i++);
    const auto ids = (*file)->tensors().find(key + ".input_ids");
    if (ids == (*file)->tensors().end()) continue;
    p.ids.resize(static_cast<size_t>(ids->second.shape[0]));
    std::memcpy(p.ids.data(), ids->second.data, ids->second.bytes);
    const FileTensor& logits = (*file)->tensors().at(key + ".logits");
    const auto width = static_cast<size_t>(logits.shape[1]);
    for (size_t row = 0; row < static_cast<size_t>(logits.shape[0]); ++row) {
      std::vector<float> values(width);
      std::memcpy(values.data(), logits.data + row * width * 4, width * 4);
      p.logits.push_back(std::move(values));
    }
    for (const int64_t token : prompt["greedy"].get_array())
      p.greedy.push_back(static_cast<TokenId>(token));
    for (const double margin : prompt["margin"].get_array()) p.margin.push_back(margin);
    fixture.prompts.push_back(std::move(p));
  }
  REQUIRE(!fixture.prompts.empty());
  return fixture;
}

// Those of the repository, and of the folder FLOTILLA_FIXTURES if it is set.
inline std::vector<std::string> fixture_dirs() {
  std::vector<std::string> dirs;
  const char* more = std::getenv("FLOTILLA_FIXTURES");
  for (const std::string& root :
       {std::string(FLOTILLA_TEST_MODELS), std::string(more ? more : "")}) {
    if (root.empty()) continue;
    for (const auto& entry : std::filesystem::directory_iterator(root)) {
      if (std::filesystem::exists(entry.path() / "reference.safetensors"))
        dirs.push_back(entry.path());
    }
  }
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

// A whole model on one rank, with a cache of its own.
struct TestModel {
  std::unique_ptr<Device> device;
  std::unique_ptr<Model> model;
  KvCache cache;
  std::unique_ptr<LocalExchange> exchange;
};

inline TestModel bring_up(const std::string& dir,
                          DType activation,
                          CpuIsa isa,
                          int threads = 1,
                          int32_t block_size = 64) {
  TestModel t;
  t.device = make_cpu_device({.num_threads = threads, .cores = {}, .isa = isa});
  auto files = open_model({.dir = dir});
  REQUIRE_MESSAGE(files.ok(), files.status().message());
  auto model = Model::load(
      std::move(*files),
      *t.device,
      {.activation = activation, .max_positions = 512, .threads = threads, .progress = {}});
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  t.model = std::move(*model);
  const ModelConfig& c = t.model->config();
  auto cache = KvCache::create({.num_layers = c.num_layers,
                                .num_blocks = 512 / block_size + 1,
                                .block_size = block_size,
                                .num_kv_heads = c.num_kv_heads,
                                .head_dim = c.head_dim,
                                .dtype = activation},
                               *t.device);
  REQUIRE(cache.ok());
  t.cache = std::move(*cache);
  if (c.has_moe()) {
    std::vector<ExpertId> all;
    for (int32_t e = 0; e < c.moe.num_experts; ++e) all.emplace_back(e);
    const Status placed = t.model->lm().experts()->place(all, threads);
    REQUIRE_MESSAGE(placed.ok(), placed.message());
  }
  t.exchange =
      std::make_unique<LocalExchange>(static_cast<int32_t>(c.moe.num_experts), c.hidden_size);
  return t;
}

}  // namespace flotilla
