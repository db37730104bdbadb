// The tokenizers that the build unpacked, and JSON lines read from their folders.
#pragma once

#include <doctest/doctest.h>
#include <simdjson.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace flotilla::test {

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

inline std::string tokenizer_dir(const std::string& name) {
  return std::string(FLOTILLA_TEST_TOKENIZERS) + "/" + name;
}

inline std::vector<std::string> tokenizer_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(FLOTILLA_TEST_TOKENIZERS)) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

inline std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name) {
  auto tokenizer = Tokenizer::load(tokenizer_dir(name));
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return std::move(*tokenizer);
}

inline std::vector<TokenId> to_ids(simdjson::dom::array array) {
  std::vector<TokenId> ids;
  for (const int64_t id : array) ids.push_back(static_cast<TokenId>(id));
  return ids;
}

struct Vector {
  bool is_decode;
  std::string text;
  std::vector<TokenId> ids;
  std::vector<TokenId>
      plain_ids;  // special tokens taken as text; the same as ids unless the file says so
};

inline std::vector<Vector> read_vectors(const std::string& name) {
  std::vector<Vector> out;
  if (!std::filesystem::exists(tokenizer_dir(name) + "/vectors.jsonl")) return out;
  std::ifstream file(tokenizer_dir(name) + "/vectors.jsonl");
  simdjson::dom::parser parser;
  for (std::string line; std::getline(file, line);) {
    simdjson::dom::element c;
    REQUIRE(parser.parse(line).get(c) == simdjson::SUCCESS);
    Vector v;
    simdjson::dom::array ids;
    v.is_decode = c["decode"].get(ids) == simdjson::SUCCESS;
    if (!v.is_decode) REQUIRE(c["ids"].get(ids) == simdjson::SUCCESS);
    v.ids = v.plain_ids = to_ids(ids);
    if (c["plain_ids"].get(ids) == simdjson::SUCCESS) v.plain_ids = to_ids(ids);
    v.text = std::string_view(c["text"]);
    out.push_back(std::move(v));
  }
  return out;
}

}  // namespace flotilla::test
