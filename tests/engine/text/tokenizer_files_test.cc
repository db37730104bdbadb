// What the loaders refuse, and how they say it.
#include <unistd.h>

#include <random>

#include "engine/text/added_tokens.h"
#include "tests/engine/text/test_tokenizers.h"

using namespace flotilla;
using namespace flotilla::test;

namespace {

// A whole tokenizer.json around one field's value.
std::string with(const std::string& field, const std::string& value) {
  std::string json = R"({"version":"1.0")";
  for (const char* name : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    json += ",\"" + std::string(name) + "\":" + (field == name ? value : "null");
  }
  json += ",\"added_tokens\":" + (field == "added_tokens" ? value : "[]");
  return json + ",\"model\":" +
         (field == "model" ? value : R"({"type":"BPE","vocab":{"a":0},"merges":[]})") + "}";
}

std::string refusal(const std::string& json) {
  const auto tokenizer = Tokenizer::from_json(json);
  REQUIRE_FALSE(tokenizer.ok());
  CHECK(tokenizer.status().code() == StatusCode::kInvalidArgument);
  return tokenizer.status().message();
}

void check_says(const std::string& message, std::string_view part) {
  CHECK_MESSAGE(message.find(part) != std::string::npos, message);
}

}  // namespace

TEST_CASE("TokenizerJson.RefusesByNameWhatItLacks") {
  CHECK(refusal(with("pre_tokenizer", R"({"type":"BertPreTokenizer"})")) ==
        "tokenizer.json: pre_tokenizer: 'BertPreTokenizer' is not supported; supported: Split, "
        "ByteLevel, Digits, "
        "Metaspace, Whitespace, WhitespaceSplit, Punctuation, Sequence");
  check_says(
      refusal(with(
          "pre_tokenizer",
          R"({"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"UnicodeScripts"}]})")),
      "pre_tokenizer[1]: 'UnicodeScripts' is not supported");
  check_says(refusal(with("normalizer", R"({"type":"Precompiled"})")), "normalizer: 'Precompiled'");
  check_says(refusal(with("decoder", R"({"type":"WordPiece"})")), "decoder: 'WordPiece'");
  check_says(refusal(with("post_processor", R"({"type":"BertProcessing"})")),
             "post_processor: 'BertProcessing'");
  check_says(refusal(with("model", R"({"type":"Unigram","vocab":[]})")),
             "model: 'Unigram' is not supported; supported: BPE");
  check_says(refusal(with("model", R"({"type":"BPE","dropout":0.1,"vocab":{},"merges":[]})")),
             "'dropout' must be null");
  check_says(
      refusal(with("decoder",
                   R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"}]})")),
      "'ByteFallback' behind Fuse");
  check_says(refusal(R"({"version":"2.0","model":{}})"), "version '2.0'");
}

TEST_CASE("TokenizerJson.NamesThePlaceOfADamage") {
  check_says(refusal(""), "not valid JSON");
  check_says(refusal("{"), "not valid JSON");
  check_says(refusal("[]"), "must be an object");
  check_says(refusal("{}"), "'model' must be an object, but is absent");
  check_says(refusal(std::string(100000, '[')), "not valid JSON");
  check_says(refusal(with("model", R"({"type":"BPE","merges":[]})")), "'vocab' must be an object");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":-1},"merges":[]})")),
             "the id of token 'a'");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":99999999},"merges":[]})")),
             "the id of token 'a'");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":"x"},"merges":[]})")),
             "the id of token 'a'");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":0},"merges":["a a"]})")),
             "'aa', which is not in the vocabulary");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":0},"merges":["aa"]})")),
             "two tokens with one space");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":0},"merges":[["a"]]})")),
             "a string or a pair");
  check_says(refusal(with("model", R"({"type":"BPE","vocab":{"a":0},"merges":[7]})")),
             "a string or a pair");
  check_says(
      refusal(with("model", R"({"type":"BPE","byte_fallback":1,"vocab":{"a":0},"merges":[]})")),
      "'byte_fallback' must be true or false");
  check_says(refusal(with("normalizer", "7")), "normalizer must be an object");
  check_says(refusal(with("normalizer", "{}")), "'type' must be a string");
  check_says(refusal(with("normalizer", R"({"type":"Replace","content":"x"})")),
             "'pattern' must be an object");
  check_says(
      refusal(with("normalizer", R"({"type":"Replace","pattern":{"Regex":"("},"content":"x"})")),
      "no closing ')'");
  check_says(
      refusal(with("pre_tokenizer",
                   R"({"type":"Split","pattern":{"Regex":"\\g<1>"},"behavior":"Isolated"})")),
      "'\\g' is not supported");
  check_says(refusal(with(
                 "pre_tokenizer",
                 R"({"type":"Split","pattern":{"Regex":"\\p{Nonsense}"},"behavior":"Isolated"})")),
             "the regex is not valid");
  check_says(refusal(with("pre_tokenizer",
                          R"({"type":"Split","pattern":{"Regex":")" + std::string(70000, 'a') +
                              R"("},"behavior":"Isolated"})")),
             "at most");
  check_says(refusal(with("pre_tokenizer",
                          R"({"type":"Split","pattern":{"Regex":")" + std::string(5000, '(') +
                              std::string(5000, ')') + R"("},"behavior":"Isolated"})")),
             "the regex is not valid");
  check_says(refusal(with("pre_tokenizer",
                          R"({"type":"Split","pattern":{"String":"a"},"behavior":"Sideways"})")),
             "behavior 'Sideways'");
  check_says(refusal(with("pre_tokenizer", R"({"type":"Metaspace","replacement":"ab"})")),
             "must be one character");
  check_says(refusal(with("pre_tokenizer",
                          R"({"type":"Metaspace","replacement":"a","prepend_scheme":"last"})")),
             "prepend_scheme 'last'");
  check_says(refusal(with("decoder", R"({"type":"Strip","content":" ","start":-1,"stop":0})")),
             "'start' must be an integer");
  check_says(refusal(with("added_tokens", R"([{"id":0}])")), "'content' must be a string");
  check_says(refusal(with("added_tokens", R"([{"content":"x"}])")), "'id' must be an integer");
  check_says(
      refusal(with("added_tokens", "[{\"id\":1,\"content\":\"" + std::string(2000, 'x') + "\"}]")),
      "at most 1024");
  check_says(
      refusal(with(
          "post_processor",
          R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}],"special_tokens":{}})")),
      "'<s>' must be an object");
}

TEST_CASE("TokenizerJson.SaysAtEncodeWhatTheFileCannotDo") {
  auto tokenizer = Tokenizer::from_json(
      with("model", R"({"type":"BPE","unk_token":"[U]","vocab":{"a":0},"merges":[]})"));
  REQUIRE(tokenizer.ok());
  const auto ids = (*tokenizer)->encode("b");
  REQUIRE_FALSE(ids.ok());
  check_says(ids.status().message(), "unk_token '[U]'");
  // A regex that backtracks without end is cut off.
  auto slow = Tokenizer::from_json(with(
      "pre_tokenizer",
      R"({"type":"Split","pattern":{"Regex":"(?:a|aa)+(?:a|aa)+[bc]"},"behavior":"Isolated"})"));
  REQUIRE(slow.ok());
  const auto cut = (*slow)->encode(std::string(4000, 'a'));
  REQUIRE_FALSE(cut.ok());
  check_says(cut.status().message(), "gave up");
}

TEST_CASE("Tokenizer.NamesTheFolderThatHasNoTokenizer") {
  const auto none = Tokenizer::load("/nonexistent/folder");
  REQUIRE_FALSE(none.ok());
  CHECK(none.status().code() == StatusCode::kNotFound);
  check_says(none.status().message(),
             "/nonexistent/folder has neither tokenizer.json nor tokenizer.model");
  const auto dir =
      std::filesystem::temp_directory_path() / ("flotilla_tokenizer_" + std::to_string(::getpid()));
  std::filesystem::create_directories(dir / "tokenizer.json");
  const auto folder = Tokenizer::load(dir);
  REQUIRE_FALSE(folder.ok());
  check_says(folder.status().message(), "is not a regular file");
  std::filesystem::remove_all(dir);
}

TEST_CASE("SentencePiece.RefusesDamagedModels") {
  const std::string model = read_file(tokenizer_dir("sp-bpe-nfkc") + "/tokenizer.model");
  const auto message = [](const std::string& bytes) {
    const auto tokenizer = Tokenizer::from_sentencepiece(bytes);
    REQUIRE_FALSE(tokenizer.ok());
    CHECK(tokenizer.status().code() == StatusCode::kInvalidArgument);
    return tokenizer.status().message();
  };
  check_says(message(""), "it has no pieces");
  check_says(message("hello world"), "no SentencePiece model or damaged");
  check_says(message(model.substr(0, model.size() / 2)), "damaged");
  REQUIRE(Tokenizer::from_sentencepiece(model).ok());
  check_says(Tokenizer::from_sentencepiece(model, "[").status().message(),
             "tokenizer_config.json is not valid JSON");
  check_says(
      Tokenizer::from_sentencepiece(model, R"({"added_tokens_decoder":{"x":{"content":"y"}}})")
          .status()
          .message(),
      "'x' is not a token id");
}

TEST_CASE("SentencePiece.SurvivesRandomDamage") {
  const std::string model = read_file(tokenizer_dir("sp-bpe-nfkc") + "/tokenizer.model");
  std::mt19937 random(5);
  for (int round = 0; round < 150; ++round) {
    std::string damaged = model;
    for (int i = 0; i < 1 + round % 8; ++i)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto tokenizer = Tokenizer::from_sentencepiece(damaged);
    if (!tokenizer.ok()) continue;
    const auto ids = (*tokenizer)->encode("Hello wörld ﬁ 你好 １２３");
    if (ids.ok()) (*tokenizer)->decode(*ids, false);
  }
}

TEST_CASE("AddedTokenMatcher.TakesTheLongestAtAPlaceAndHonoursItsFlags") {
  text::AddedTokenMatcher matcher;
  text::AddedToken token;
  token.id = 1;
  matcher.add(token, "ab");
  token.id = 2;
  matcher.add(token, "abc");
  token.id = 3;
  token.single_word = true;
  matcher.add(token, "word");
  std::vector<text::AddedTokenMatcher::Part> parts;
  matcher.split("xabcab word sword", true, &parts);
  std::vector<TokenId> ids;
  for (const auto& part : parts) ids.push_back(part.id);
  CHECK(ids == std::vector<TokenId>{-1, 2, 1, -1, 3, -1});
}
