// SmolLM2 and its twins say the same, and the twins do not when their routing is wrong. Needs the
// model: tools/fetch_model gets it once.
#include <doctest/doctest.h>

#include <cstdio>
#include <map>

#include "common/json.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tests/tools/convert/greedy.h"
#include "tests/tools/convert/scratch_dir.h"
#include "tools/convert/convert.h"

using namespace flotilla;
using namespace flotilla::convert;

namespace {

constexpr size_t kTokens = 32;
constexpr int kThreads = 2;
constexpr const char* kQuestions[] = {"Give me three tips for better sleep.",
                                      "Hi! Who are you?",
                                      "Write a haiku about the sea.",
                                      "How do I make a cup of tea?"};

// The last line of tools/fetch_model, which is the file's path; empty if it failed.
std::string fetch_model() {
  std::FILE* pipe = ::popen(FLOTILLA_FETCH_MODEL " 2>&1", "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, n);
  if (::pclose(pipe) != 0) {
    std::printf("SKIPPED: SmolLM2 is not here and cannot be fetched:\n%s\n", output.c_str());
    return {};
  }
  output.erase(output.find_last_not_of('\n') + 1);
  return output.substr(output.find_last_of('\n') + 1);
}

// Converted once for all cases of this process.
struct Models {
  ScratchDir dir;
  std::string dense = dir / "dense";
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::vector<TokenId>> texts;  // of the dense model, in F32
  bool found = false;

  Models() {
    const std::string gguf = fetch_model();
    if (gguf.empty()) return;
    const Status status = convert_gguf(gguf, dense, {.threads = kThreads});
    REQUIRE_MESSAGE(status.ok(), status.message());
    const auto tokenizer = Tokenizer::load(dense);
    REQUIRE(tokenizer.ok());
    const auto chat = ChatTemplate::load(dense, (*tokenizer)->config());
    REQUIRE(chat.ok());
    for (const char* question : kQuestions) {
      std::string messages = "[{\"role\":\"user\",\"content\":";
      append_json_string(&messages, question);
      const auto text = (*chat)->render({.messages_json = messages + "}]"});
      REQUIRE(text.ok());
      prompts.push_back((*tokenizer)->encode(*text).value());
    }
    TestModel model = bring_up(dense, DType::kF32, best_cpu_isa(), kThreads);
    texts = run(model);
    const std::string tips = (*tokenizer)->decode(texts[0], true);
    CHECK_MESSAGE(tips.find("sleep") != std::string::npos, tips);
    found = true;
  }

  std::vector<std::vector<TokenId>> run(TestModel& model,
                                        const FaultyExchange::Faults& faults = {}) const {
    GreedyRunner runner(model);
    std::vector<std::vector<TokenId>> out;
    for (const auto& prompt : prompts) out.push_back(runner.generate(prompt, kTokens, faults));
    return out;
  }
};

const Models& models() {
  static const Models* models = new Models;
  return *models;
}

struct ModelsAtExit {
  ~ModelsAtExit() { std::filesystem::remove_all(models().dir / ""); }
};

}  // namespace

TEST_CASE("SmolLm2.TwinsSayWhatTheDenseModelSays") {
  if (!models().found) return;
  const ModelsAtExit cleanup;
  for (const std::string kind : {"ernie-strict", "ernie-pairs", "qwen3-strict"}) {
    CAPTURE(kind);
    ScratchDir dir;
    TwinOptions options = parse_twin(kind).value();
    options.threads = kThreads;
    const auto report = convert_moe_twin(models().dense, dir / "twin", options);
    REQUIRE_MESSAGE(report.ok(), report.status().message());
    CHECK(report->least_share >= 0.07);
    CHECK(report->largest_share <= 0.28);
    TestModel twin = bring_up(dir / "twin", DType::kF32, best_cpu_isa(), kThreads);

    // Per layer and expert, over prompts and answers.
    const size_t layers = static_cast<size_t>(twin.model->config().num_moe_layers());
    std::vector<std::map<int32_t, double>> counts(layers);
    size_t layer = 0;
    int64_t pairs = 0;
    CHECK(models().run(twin, {.look = [&](const TensorView& ids) {
                         for (int64_t i = 0; i < ids.elements(); ++i)
                           ++counts[layer][ids.as<int32_t>()[i]];
                         if (layer == 0) pairs += ids.elements();
                         layer = (layer + 1) % layers;
                       }}) == models().texts);
    double least = 1.0, largest = 0.0;
    for (const auto& of_layer : counts) {
      for (const auto& [expert, count] : of_layer) {
        const double share = count / static_cast<double>(pairs);
        least = std::min(least, share);
        largest = std::max(largest, share);
        if (options.family == TwinFamily::kErnie45) CHECK(expert / 2 != 1);  // poison
      }
    }
    MESSAGE(kind << ": an expert gets " << least << " to " << largest << " of a layer's rows");
    CHECK(least > 0.04);
    CHECK(largest < 0.32);

    if (!options.strict) continue;
    for (const NamedFault& fault : routing_faults(8)) {
      CAPTURE(fault.name);
      const auto spoilt = models().run(twin, fault.faults);
      for (size_t p = 0; p < spoilt.size(); ++p) CHECK(spoilt[p] != models().texts[p]);
    }
    TestModel bf16 = bring_up(dir / "twin", DType::kBf16, best_cpu_isa(), kThreads);
    const auto rounded = models().run(bf16);
    size_t begin_alike = 0;
    for (size_t p = 0; p < rounded.size(); ++p) {
      begin_alike +=
          std::equal(rounded[p].begin(), rounded[p].begin() + 8, models().texts[p].begin());
    }
    CHECK(begin_alike >= 3);
  }
}
