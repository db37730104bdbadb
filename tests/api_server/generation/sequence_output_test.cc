#include "api_server/generation/sequence_output.h"

#include <doctest/doctest.h>

#include <random>

#include "tests/fakes/byte_tokenizer.h"
#include "tests/fakes/fake_dispatcher.h"

namespace flotilla {
namespace {

using Fresh = SequenceOutput::Fresh;

const Tokenizer& tokenizer() {
  static const std::unique_ptr<Tokenizer> kTokenizer = make_byte_tokenizer();
  return *kTokenizer;
}

TokenBatch batch_of(std::span<const TokenId> tokens,
                    FinishReason finish = FinishReason::kRunning,
                    bool logprobs = false) {
  TokenBatch batch;
  batch.tokens.assign(tokens.begin(), tokens.end());
  if (logprobs) {
    for (const TokenId token : tokens)
      batch.logprobs.push_back(FakeDispatcher::position_of(token, 2));
  }
  batch.finish = finish;
  return batch;
}
TokenBatch text_batch(std::string_view text, FinishReason finish = FinishReason::kRunning) {
  return batch_of(byte_ids(text), finish);
}
std::string joined_tokens(const std::vector<openai::LogprobEntry>& entries) {
  std::string text;
  for (const auto& entry : entries) text += entry.chosen.bytes.value_or("");
  return text;
}

TEST_CASE("SequenceOutput.NeverGivesHalfACharacter") {
  SequenceOutput output(tokenizer(), {});
  output.add(text_batch("a\xF0\x9F"));
  CHECK(output.take().text == "a");
  output.add(text_batch("\x98\x80!"));
  CHECK(output.take().text == "\xF0\x9F\x98\x80!");
}

TEST_CASE("SequenceOutput.ReplacesACharacterThatTheTokenLimitCutInTwo") {
  SequenceOutput output(tokenizer(), {});
  output.add(text_batch("a\xF0\x9F", FinishReason::kLength));
  CHECK(output.take().text == "a\xEF\xBF\xBD");
  CHECK(output.finish_reason() == FinishReason::kLength);
  CHECK(output.num_tokens() == 3);
}

TEST_CASE("SequenceOutput.CutsAtAStopStringAndAsksForTheEnd") {
  SequenceOutput output(tokenizer(), {.stop = {"END"}});
  output.add(text_batch("one E"));
  CHECK(output.take().text == "one ");
  output.add(text_batch("ND and more"));
  const Fresh fresh = output.take();
  CHECK(fresh.text.empty());
  CHECK(output.finished());
  CHECK(output.ended_before_engine());
  CHECK(output.finish_reason() == FinishReason::kStop);
  CHECK(std::get<std::string>(output.stop_reason()) == "END");
  // What the engine produced behind the stop string does not count.
  CHECK(output.num_tokens() == 7);
  CHECK(fresh.token_ids == byte_ids("ND"));
}

TEST_CASE("SequenceOutput.GivesBackWhatOnlyLookedLikeAStopString") {
  SequenceOutput output(tokenizer(), {.stop = {"END"}});
  output.add(text_batch("EN"));
  CHECK(output.take().text.empty());
  output.add(text_batch("EN", FinishReason::kLength));
  CHECK(output.take().text == "ENEN");
}

TEST_CASE("SequenceOutput.IncludesTheStopStringOnRequest") {
  SequenceOutput output(tokenizer(), {.stop = {"END"}, .include_stop = true});
  output.add(text_batch("one END more"));
  CHECK(output.take().text == "one END");
}

TEST_CASE("SequenceOutput.DoesNotLookForStopStringsWithinMinTokens") {
  SequenceOutput output(tokenizer(), {.stop = {"x"}, .min_tokens = 3});
  output.add(text_batch("xxxax"));
  CHECK(output.take().text == "xxxa");
  CHECK(output.finish_reason() == FinishReason::kStop);
}

TEST_CASE("SequenceOutput.CountsAndShowsTheStopTokenButNotItsText") {
  TokenBatch batch = text_batch("hi", FinishReason::kStop);
  batch.stop_token = 'x';
  {
    SequenceOutput output(tokenizer(), {.stop_token_ids = {'x'}});
    output.add(batch);
    const Fresh fresh = output.take();
    CHECK(fresh.text == "hi");
    CHECK(fresh.token_ids == byte_ids("hix"));
    CHECK(output.num_tokens() == 3);
    CHECK(std::get<TokenId>(output.stop_reason()) == 'x');
    CHECK_FALSE(output.ended_before_engine());
  }
  {
    SequenceOutput output(tokenizer(), {.stop_token_ids = {'x'}, .include_stop = true});
    output.add(batch);
    CHECK(output.take().text == "hix");
  }
  {
    // End-of-sequence is no reason that the client named.
    SequenceOutput output(tokenizer(), {});
    batch.stop_token = kByteEos;
    output.add(batch);
    CHECK(std::holds_alternative<std::monostate>(output.stop_reason()));
  }
}

TEST_CASE("SequenceOutput.ReportsErrorsAndForeignCancellation") {
  SequenceOutput failed(tokenizer(), {});
  TokenBatch batch = text_batch("a", FinishReason::kError);
  batch.error = unavailable("gone");
  failed.add(batch);
  CHECK(failed.finish_reason() == FinishReason::kError);
  CHECK(failed.error().message() == "gone");

  SequenceOutput silent(tokenizer(), {});
  silent.add(text_batch("a", FinishReason::kError));
  CHECK(silent.error().code() == StatusCode::kInternal);

  SequenceOutput stopped(tokenizer(), {});
  stopped.add(text_batch("", FinishReason::kCancelled));
  CHECK(stopped.finish_reason() == FinishReason::kError);
  CHECK(stopped.error().code() == StatusCode::kUnavailable);
}

TEST_CASE("SequenceOutput.DiscardsWhatIsOnlyThereForTheEcho") {
  SequenceOutput output(tokenizer(), {.discard = true});
  output.add(text_batch("a"));
  CHECK(output.finish_reason() == FinishReason::kLength);
  CHECK(output.ended_before_engine());
  CHECK(output.num_tokens() == 0);
  CHECK(output.take().text.empty());
}

TEST_CASE("SequenceOutput.SkipsOrShowsSpecialTokens") {
  const std::vector<TokenId> tokens = {'a', kByteEos, 'b'};
  SequenceOutput skips(tokenizer(), {});
  skips.add(batch_of(tokens));
  CHECK(skips.take().text == "ab");
  SequenceOutput shows(tokenizer(), {.skip_special_tokens = false});
  shows.add(batch_of(tokens));
  CHECK(shows.take().text == "a<|end|>b");
}

TEST_CASE("SequenceOutput.GivesNothingForIdsBeyondTheTokenizerButCountsThem") {
  SequenceOutput output(tokenizer(), {.logprobs = true});
  const std::vector<TokenId> tokens = {'a', 290, 'b'};
  output.add(batch_of(tokens, FinishReason::kLength, true));
  const Fresh fresh = output.take();
  CHECK(fresh.text == "ab");
  CHECK(output.num_tokens() == 3);
  REQUIRE(fresh.logprobs.size() == 3);
  CHECK(fresh.logprobs[1].chosen.token == "token_id:290");
  CHECK_FALSE(fresh.logprobs[1].chosen.bytes);
}

TEST_CASE("SequenceOutput.NamesTokensByIdOnRequest") {
  SequenceOutput output(tokenizer(), {.logprobs = true, .tokens_as_ids = true});
  const std::vector<TokenId> tokens = {'a'};
  output.add(batch_of(tokens, FinishReason::kLength, true));
  const Fresh fresh = output.take();
  CHECK(fresh.logprobs[0].chosen.token == "token_id:97");
  CHECK(fresh.logprobs[0].top[1].token == "token_id:98");
}

TEST_CASE("SequenceOutput.HoldsLogprobsBackWithTheText") {
  SequenceOutput output(tokenizer(), {.stop = {"END"}, .logprobs = true});
  output.add(batch_of(byte_ids("aEN"), FinishReason::kRunning, true));
  CHECK(joined_tokens(output.take().logprobs) == "a");
  output.add(batch_of(byte_ids("x"), FinishReason::kRunning, true));
  CHECK(joined_tokens(output.take().logprobs) == "ENx");
  output.add(batch_of(byte_ids("END"), FinishReason::kRunning, true));
  CHECK(output.take().logprobs.empty());
}

TEST_CASE("SequenceOutput.GivesTextOffsetsInCharactersBehindTheEcho") {
  SequenceOutput output(tokenizer(), {.logprobs = true, .text_offset = 10});
  output.add(batch_of(byte_ids("\xC3\xA9z"), FinishReason::kLength, true));
  const Fresh fresh = output.take();
  REQUIRE(fresh.logprobs.size() == 3);
  CHECK(fresh.logprobs[0].text_offset == 10);
  CHECK(fresh.logprobs[1].text_offset == 10);
  CHECK(fresh.logprobs[2].text_offset == 11);
}

TEST_CASE("SequenceOutput.SplitsReasoningAndCountsItsTokens") {
  OutputOptions options;
  options.reasoning = ReasoningParser::make("qwen3", "").value();
  SequenceOutput output(tokenizer(), options);
  std::vector<TokenId> tokens = {kByteThink};
  for (const TokenId id : byte_ids("\nhm\n")) tokens.push_back(id);
  tokens.push_back(kByteEndThink);
  for (const TokenId id : byte_ids("\n\nyes")) tokens.push_back(id);
  output.add(batch_of(tokens, FinishReason::kLength));
  const Fresh fresh = output.take();
  CHECK(fresh.reasoning == "hm");
  CHECK(fresh.text == "yes");
  CHECK(output.answer_begun());
  CHECK(output.num_reasoning_tokens() == 5);
  CHECK(output.num_tokens() == 11);
}

TEST_CASE("SequenceOutput.SaysWhenAllOfItWasReasoning") {
  OutputOptions options;
  options.reasoning = ReasoningParser::make("qwen3", "<think>\n").value();
  SequenceOutput output(tokenizer(), options);
  output.add(text_batch("endless", FinishReason::kLength));
  const Fresh fresh = output.take();
  CHECK(fresh.reasoning == "endless");
  CHECK_FALSE(output.answer_begun());
}

TEST_CASE("SequenceOutput.SeesThinkingMarksThatAreSpecialTokens") {
  // As in ERNIE's thinking models, where a decoder that skips special tokens would drop the mark.
  std::string json = byte_tokenizer_json();
  for (const std::string mark : {"\"<think>\"", "\"</think>\""}) {
    const size_t at = json.find("\"special\":false", json.find(mark));
    REQUIRE(at != std::string::npos);
    json.replace(at, 15, "\"special\":true");
  }
  const auto special = Tokenizer::from_json(json).value();
  REQUIRE(special->is_special(kByteEndThink));
  OutputOptions options;
  options.reasoning = ReasoningParser::make("ernie-x1", "<think>\n").value();
  SequenceOutput output(*special, options);
  std::vector<TokenId> tokens = byte_ids("why\n");
  tokens.push_back(kByteEndThink);
  for (const TokenId id : byte_ids("\n\nso")) tokens.push_back(id);
  tokens.push_back(kByteEos);
  output.add(batch_of(tokens, FinishReason::kLength));
  const Fresh fresh = output.take();
  CHECK(fresh.reasoning == "why");
  CHECK(fresh.text == "so");
}

TEST_CASE("SequenceOutput.GoesOnBehindResumedTokens") {
  SequenceOutput output(tokenizer(), {}, byte_ids("old \xC3"));
  output.add(text_batch("\xA9 new", FinishReason::kLength));
  CHECK(output.take().text == "\xC3\xA9 new");
  CHECK(output.num_tokens() == 5);
}

// However tokens are cut into batches and answers are taken, the whole is the same.
TEST_CASE("SequenceOutput.GivesTheSameWholeForAnyChunking") {
  std::mt19937 random(7);
  const auto pick = [&](size_t n) { return static_cast<size_t>(random() % n); };
  const std::vector<std::string> pieces = {"a",
                                           "b",
                                           "E",
                                           "N",
                                           "D",
                                           "EN",
                                           "END",
                                           "\xC3\xA9",
                                           "\xF0\x9F\x98\x80",
                                           "\xE2\x82",
                                           "\xFF",
                                           "<think>",
                                           "</think>",
                                           "\n",
                                           "stop"};
  for (int round = 0; round < 400; ++round) {
    OutputOptions options;
    if (pick(2) == 0) options.stop = {"END", "Nb", "\xC3\xA9\xC3\xA9", "stop"};
    options.include_stop = pick(3) == 0;
    options.logprobs = pick(2) == 0;
    options.min_tokens = static_cast<uint32_t>(pick(4) == 0 ? pick(10) : 0);
    if (pick(3) == 0)
      options.reasoning = ReasoningParser::make(pick(2) == 0 ? "qwen3" : "ernie-x1", "").value();
    std::vector<TokenId> tokens;
    for (size_t n = pick(40); n > 0; --n) {
      if (pick(8) == 0) {
        tokens.push_back(static_cast<TokenId>(kByteEos + pick(40)));
        continue;
      }
      for (const TokenId id : byte_ids(pieces[pick(pieces.size())])) tokens.push_back(id);
    }
    const FinishReason reason = pick(2) == 0 ? FinishReason::kStop : FinishReason::kLength;
    const TokenId stop_token = reason == FinishReason::kStop && pick(2) == 0 ? kByteEos : -1;

    const auto run = [&](bool whole) {
      SequenceOutput output(tokenizer(), options);
      Fresh all;
      size_t at = 0;
      while (!output.finished()) {
        const size_t n = whole ? tokens.size() : std::min(tokens.size() - at, pick(4));
        const bool last = at + n == tokens.size();
        TokenBatch batch = batch_of(std::span(tokens).subspan(at, n),
                                    last ? reason : FinishReason::kRunning,
                                    options.logprobs);
        if (last) batch.stop_token = stop_token;
        output.add(batch);
        at += n;
        if (!whole && !output.finished() && pick(2) == 0) continue;
        Fresh fresh = output.take();
        all.text += fresh.text;
        all.reasoning += fresh.reasoning;
        all.token_ids.insert(all.token_ids.end(), fresh.token_ids.begin(), fresh.token_ids.end());
        std::move(fresh.logprobs.begin(), fresh.logprobs.end(), std::back_inserter(all.logprobs));
      }
      std::string summary = all.text + "|" + all.reasoning + "|" +
                            std::to_string(output.num_tokens()) + "|" +
                            std::to_string(output.num_reasoning_tokens()) + "|" +
                            std::string(openai::finish_reason_name(output.finish_reason())) + "|";
      for (const TokenId id : all.token_ids) summary += std::to_string(id) + ",";
      for (const auto& entry : all.logprobs) {
        summary += entry.chosen.token + "@" + std::to_string(entry.text_offset) + ";";
      }
      if (const auto* stop = std::get_if<std::string>(&output.stop_reason())) summary += *stop;
      CHECK(all.token_ids.size() == output.num_tokens());
      return summary;
    };
    const std::string expected = run(true);
    for (int k = 0; k < 4; ++k) {
      CAPTURE(round);
      REQUIRE(run(false) == expected);
    }
  }
}

}  // namespace
}  // namespace flotilla
