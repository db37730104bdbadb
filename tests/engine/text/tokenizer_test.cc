#include "engine/text/tokenizer.h"

#include <thread>

#include "common/utf8.h"
#include "engine/text/unicode.h"
#include "tests/engine/text/test_tokenizers.h"

using namespace flotilla;
using namespace flotilla::test;

namespace {

std::vector<TokenId> encode(const Tokenizer& tokenizer,
                            std::string_view text,
                            EncodeOptions options = {}) {
  auto ids = tokenizer.encode(text, options);
  REQUIRE_MESSAGE(ids.ok(), ids.status().message());
  return *ids;
}

using Ids = std::vector<TokenId>;

}  // namespace

TEST_CASE("Tokenizer.GivesHuggingFacesIdsAndTexts") {
  size_t tokenizers = 0, vectors = 0;
  for (const std::string& name : tokenizer_names()) {
    CAPTURE(name);
    const auto tokenizer = load_tokenizer(name);
    for (const Vector& v : read_vectors(name)) {
      ++vectors;
      CAPTURE(v.text);
      if (v.is_decode) {
        CHECK(tokenizer->decode(v.ids, false) == v.text);
      } else {
        CHECK(encode(*tokenizer, v.text) == v.ids);
        CHECK(encode(*tokenizer, v.text, {.parse_special = false}) == v.plain_ids);
      }
    }
    ++tokenizers;
  }
  CHECK(tokenizers >= 40);
  CHECK(vectors > 3000);
}

TEST_CASE("Tokenizer.GivesTheFixturesIdsAndTexts") {
  for (const char* name : {"fixture-bytelevel", "fixture-ernie"}) {
    const auto tokenizer = load_tokenizer(name);
    simdjson::dom::parser parser;
    simdjson::dom::array cases;
    const std::string json = read_file(tokenizer_dir(name) + "/encodings.json");
    REQUIRE(parser.parse(json).get(cases) == simdjson::SUCCESS);
    for (const auto c : cases) {
      const std::string_view text = c["text"];
      CAPTURE(text);
      const Ids ids = to_ids(c["ids"]);
      CHECK(encode(*tokenizer, text) == ids);
      std::string_view decoded;  // without special tokens
      if (c["decoded"].get(decoded) == simdjson::SUCCESS)
        CHECK(tokenizer->decode(ids, true) == decoded);
    }
  }
}

TEST_CASE("Tokenizer.AddsBosOnlyWhenAskedFor") {
  const auto llama3 = load_tokenizer("llama3");
  const Ids plain = encode(*llama3, "Hi");
  Ids with_bos{*llama3->token_id("<|begin|>")};
  with_bos.insert(with_bos.end(), plain.begin(), plain.end());
  CHECK(encode(*llama3, "Hi", {.add_special_tokens = true}) == with_bos);
  // A rendered template writes its own BOS, and gets no second one.
  CHECK(encode(*llama3, "<|begin|>Hi") == with_bos);

  const std::string model = read_file(tokenizer_dir("sp-bpe-llama2") + "/tokenizer.model");
  auto llama2 = Tokenizer::from_sentencepiece(
      model,
      R"({"tokenizer_class":"LlamaTokenizer","bos_token":"<s>","eos_token":{"content":"</s>"}})");
  REQUIRE(llama2.ok());
  CHECK(encode(**llama2, "", {.add_special_tokens = true}) == Ids{1});
  CHECK((*llama2)->bos_id() == 1);
  CHECK((*llama2)->eos_id() == 2);
  CHECK_FALSE((*llama2)->pad_id().has_value());
  auto both = Tokenizer::from_sentencepiece(
      model, R"({"bos_token":"<s>","eos_token":"</s>","add_bos_token":true,"add_eos_token":true})");
  REQUIRE(both.ok());
  CHECK(encode(**both, "", {.add_special_tokens = true}) == Ids{1, 2});
}

TEST_CASE("Tokenizer.KeepsSpecialTokensOfUserTextAsTextWhenTold") {
  const auto qwen = load_tokenizer("qwen");
  const Ids parsed = encode(*qwen, "<|im_end|>");
  CHECK(parsed == Ids{*qwen->token_id("<|im_end|>")});
  const Ids text = encode(*qwen, "<|im_end|>", {.parse_special = false});
  CHECK(text.size() > 1);
  CHECK(qwen->decode(text, false) == "<|im_end|>");
}

TEST_CASE("Tokenizer.DecodesIdsBeyondItsVocabularyToNothingAndNamesThem") {
  const auto ernie = load_tokenizer("fixture-ernie");
  const TokenId beyond = static_cast<TokenId>(ernie->vocab_size());
  CHECK(ernie->vocab_size() == 1003);
  CHECK(ernie->decode(Ids{beyond, -1, beyond + 5000, INT32_MAX}, false).empty());
  CHECK(ernie->token_text(beyond) == "token_id:" + std::to_string(beyond));
  CHECK(ernie->token_text(-1) == "token_id:-1");
  CHECK(ernie->token_bytes(beyond).empty());
  CHECK_FALSE(ernie->is_special(beyond));
  CHECK_FALSE(ernie->is_special(-1));
}

TEST_CASE("Tokenizer.KnowsErniesAddedTokensBeyondTheModel") {
  const auto ernie = load_tokenizer("fixture-ernie");
  CHECK(ernie->token_id("<think>") == 1001);
  CHECK(ernie->is_special(1001));
  CHECK(ernie->token_bytes(1001) == "<think>");
  const Ids ids = encode(*ernie, "a<think>b</think><|im_end|>");
  CHECK(std::ranges::count(ids, 1001) == 1);
  CHECK(std::ranges::count(ids, 1002) == 1);
  CHECK(std::ranges::count(ids, 9) == 1);
  CHECK(ernie->decode(ids, false) == "a<think>b</think><|im_end|>");
  CHECK(ernie->decode(ids, true) == "ab");
  CHECK(ernie->config().model_max_length == 131072);
  CHECK(ernie->config().special_token("cls_token") == "<|begin_of_sentence|>");
  CHECK(ernie->bos_id() == 1);
}

TEST_CASE("Tokenizer.GivesEachTokensOwnBytes") {
  for (const char* name : {"qwen", "llama2", "gemma", "fixture-ernie", "sp-bpe-llama2"}) {
    CAPTURE(name);
    const auto tokenizer = load_tokenizer(name);
    std::string bytes;
    const std::string text = "A b\n你好 😀!";
    for (const TokenId id : encode(*tokenizer, text)) bytes += tokenizer->token_bytes(id);
    // Llama-2's dummy space is a byte of the first token.
    if (bytes.starts_with(' ')) bytes.erase(0, 1);
    CHECK(bytes == text);
  }
  const auto llama2 = load_tokenizer("llama2");
  const TokenId byte = *llama2->token_id("<0xF0>");
  CHECK(llama2->token_bytes(byte) == "\xF0");
  CHECK(llama2->token_text(byte) == "\uFFFD");
}

TEST_CASE("Tokenizer.RefusesTextThatIsNotUtf8") {
  const auto qwen = load_tokenizer("qwen");
  for (const char* text : {"\xff", "a\xc3", "\xed\xa0\x80", "\xf8\x88\x80\x80\x80"}) {
    const auto ids = qwen->encode(text);
    REQUIRE_FALSE(ids.ok());
    CHECK(ids.status().code() == StatusCode::kInvalidArgument);
  }
}

TEST_CASE("Tokenizer.TakesAMegabyteWithoutASpaceInLinearithmicTime") {
  // A quadratic merge or normalisation would take minutes; the test's own time limit would end it.
  std::string repeated, marks;
  for (int i = 0; i < 500'000; ++i) repeated += "ab";
  for (int i = 0; i < 250'000; ++i) marks += "\u0301\u0323";
  for (const char* name : {"qwen", "llama3", "o200k", "llama2", "ernie", "fixture-ernie", "gpt2"}) {
    CAPTURE(name);
    const auto tokenizer = load_tokenizer(name);
    for (const std::string& text :
         {repeated, marks, std::string(1'000'000, ' '), std::string(1'000'000, '\n')}) {
      CHECK(encode(*tokenizer, text).size() > 1000);
    }
  }
}

TEST_CASE("Tokenizer.GivesTheSameIdsToManyThreadsAtOnce") {
  const auto tokenizer = load_tokenizer("qwen");
  std::vector<std::pair<std::string, Ids>> expected;
  for (const Vector& v : read_vectors("qwen")) {
    if (!v.is_decode) expected.emplace_back(v.text, v.ids);
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < expected.size() * 5; ++i) {
        const auto& [text, ids] = expected[(i * 7 + static_cast<size_t>(t)) % expected.size()];
        const auto got = tokenizer->encode(text);
        if (!got.ok() || *got != ids) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("Unicode.NormalisesLongRunsInPiecesAsInOne") {
  // The composer gives out in pieces; Hangul and marks at a piece's edge must not notice.
  std::string text, expected;
  for (int i = 0; i < 20'000; ++i) {
    text += "\u1112\u1161\u11ab";  // 한 in three
    expected += "한";
    text += "e\u0301";
    expected += "\u00e9";
  }
  CHECK(text::normalize(text::NormalForm::kNfc, text) == expected);
  CHECK(text::normalize(text::NormalForm::kNfd, expected) == text);
}
