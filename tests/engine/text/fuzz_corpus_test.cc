// The fuzzers' targets over a small corpus and random damage to it, with fixed seeds: what
// libFuzzer once found stays found.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

#include "tests/fuzz/text/targets.h"

using namespace flotilla;

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

std::vector<std::string> corpus(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) out.push_back(read(entry.path()));
  }
  return out;
}

void run_with_damage(void (*target)(std::span<const uint8_t>),
                     const std::vector<std::string>& seeds,
                     int rounds) {
  REQUIRE_FALSE(seeds.empty());
  std::mt19937 random(17);
  const auto run = [&](const std::string& input) {
    target({reinterpret_cast<const uint8_t*>(input.data()), input.size()});
  };
  for (const std::string& seed : seeds) {
    run(seed);
    for (int round = 0; round < rounds && !seed.empty(); ++round) {
      std::string input = seed;
      for (uint32_t n = 1 + random() % 4; n > 0 && !input.empty(); --n) {
        const size_t at = random() % input.size();
        switch (random() % 4) {
          case 0:
            input[at] = static_cast<char>(random());
            break;
          case 1:
            input.erase(at, 1 + random() % 8);
            break;
          case 2:
            input.insert(at, input.substr(random() % input.size(), random() % 24));
            break;
          default: {
            const std::string& other = seeds[random() % seeds.size()];
            if (!other.empty())
              input.insert(at, other.substr(random() % other.size(), random() % 40));
          }
        }
      }
      run(input);
    }
  }
}

}  // namespace

TEST_CASE("FuzzCorpus.TokenizerJsonSurvivesDamage") {
  run_with_damage(
      fuzz::tokenizer_json, corpus(FLOTILLA_TEST_DATA "/text/fuzz/tokenizer_json"), 250);
}

TEST_CASE("FuzzCorpus.ChatTemplateSurvivesDamage") {
  auto seeds = corpus(FLOTILLA_TEST_DATA "/text/fuzz/chat_template");
  for (std::string& seed : corpus(FLOTILLA_TEST_DATA "/text/templates"))
    seeds.push_back(std::move(seed));
  run_with_damage(fuzz::chat_template, seeds, 60);
}

TEST_CASE("FuzzCorpus.TextStreamSurvivesDamage") {
  std::mt19937 random(23);
  std::vector<std::string> seeds;
  for (int i = 0; i < 50; ++i) {
    std::string seed;
    for (uint32_t n = 4 + random() % 60; n > 0; --n)
      seed += static_cast<char>(random() % 3 == 0 ? random() % 8 : random());
    seeds.push_back(seed);
  }
  run_with_damage(fuzz::text_stream, seeds, 60);
}
