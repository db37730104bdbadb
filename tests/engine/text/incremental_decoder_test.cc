#include "engine/text/incremental_decoder.h"

#include <random>

#include "common/utf8.h"
#include "tests/engine/text/test_tokenizers.h"

using namespace flotilla;
using namespace flotilla::test;

namespace {

// All of the ids through a decoder, in runs as `random` cuts them; every piece must be whole
// characters.
std::string decode_in_runs(const Tokenizer& tokenizer,
                           const std::vector<TokenId>& ids,
                           bool skip,
                           std::mt19937* random) {
  IncrementalDecoder decoder(tokenizer, skip);
  std::string out;
  for (size_t at = 0; at < ids.size();) {
    const size_t n = std::min<size_t>(1 + (*random)() % 3, ids.size() - at);
    std::string piece;
    if (n == 1) {
      decoder.append(ids[at], &piece);
    } else {
      decoder.append(std::span(ids).subspan(at, n), &piece);
    }
    CHECK(is_valid_utf8(piece));
    out += piece;
    at += n;
  }
  decoder.finish(&out);
  return out;
}

}  // namespace

// Failure table row 21: no half characters in chunks.
TEST_CASE("IncrementalDecoder.NeverEmitsHalfACharacterAndEqualsDecode") {
  std::mt19937 random(11);
  for (const std::string& name : tokenizer_names()) {
    CAPTURE(name);
    const auto tokenizer = load_tokenizer(name);
    const auto limit = static_cast<uint32_t>(tokenizer->vocab_size());
    for (int round = 0; round < 40; ++round) {
      std::vector<TokenId> ids;
      for (uint32_t i = random() % 30; i > 0; --i)
        ids.push_back(static_cast<TokenId>(random() % (limit + 3)));
      for (const bool skip : {false, true}) {
        CHECK(decode_in_runs(*tokenizer, ids, skip, &random) == tokenizer->decode(ids, skip));
      }
    }
    const auto text_ids =
        tokenizer->encode("Emoji 😀👩‍👩‍👧 und 你好, é e\u0301!\n\n  x");
    REQUIRE(text_ids.ok());
    CHECK(decode_in_runs(*tokenizer, *text_ids, false, &random) ==
          tokenizer->decode(*text_ids, false));
  }
}

TEST_CASE("IncrementalDecoder.HoldsAnEmojiUntilItsLastByte") {
  const auto tokenizer = load_tokenizer("fixture-bytelevel");
  const auto ids = tokenizer->encode("a😀b");
  REQUIRE(ids.ok());
  REQUIRE(ids->size() == 6);  // the emoji's bytes are tokens of their own
  IncrementalDecoder decoder(*tokenizer, false);
  std::vector<std::string> pieces;
  for (const TokenId id : *ids) {
    std::string piece;
    decoder.append(id, &piece);
    pieces.push_back(piece);
  }
  CHECK(pieces == std::vector<std::string>{"a", "", "", "", "😀", "b"});
}

TEST_CASE("IncrementalDecoder.EmitsSentencePieceBytesAsSoonAsACharacterIsWhole") {
  const auto ernie = load_tokenizer("fixture-ernie");
  IncrementalDecoder decoder(*ernie, true);
  std::string out;
  decoder.append(*ernie->token_id("<0x0A>"), &out);
  CHECK(out == "\n");
  for (const char* byte : {"<0xF0>", "<0x9F>", "<0x98>"})
    decoder.append(*ernie->token_id(byte), &out);
  CHECK(out == "\n");
  decoder.append(*ernie->token_id("<0x80>"), &out);
  CHECK(out == "\n😀");
}

// Failure table row 20: max_tokens may cut a character in two.
TEST_CASE("IncrementalDecoder.EndsACutCharacterWithAReplacementCharacter") {
  for (const char* name : {"gpt2", "llama2", "fixture-ernie"}) {
    CAPTURE(name);
    const auto tokenizer = load_tokenizer(name);
    auto ids = tokenizer->encode("x😀");
    REQUIRE(ids.ok());
    ids->pop_back();
    IncrementalDecoder decoder(*tokenizer, false);
    std::string out;
    decoder.append(*ids, &out);
    CHECK(out.ends_with("x"));
    decoder.finish(&out);
    CHECK(is_valid_utf8(out));
    CHECK(out.find("\uFFFD") != std::string::npos);
    CHECK(out == tokenizer->decode(*ids, false));
  }
}
