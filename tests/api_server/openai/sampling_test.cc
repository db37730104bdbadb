#include "api_server/openai/sampling.h"

#include <doctest/doctest.h>

namespace flotilla::openai {
namespace {

constexpr EngineLimits kLimits = {
    .max_model_len = 100, .vocab_size = 1000, .max_prompt_tokens = 99};

TEST_CASE("ResolveSampling.FallsBackToTheEnginesDefaults") {
  const SamplingParams p = resolve_sampling({}, {}, kLimits, 10).value();
  CHECK(p.temperature == 1.0f);
  CHECK(p.top_p == 1.0f);
  CHECK(p.top_k == 0);
  CHECK(p.repetition_penalty == 1.0f);
  CHECK(p.max_tokens == 90);
  CHECK(p.logprobs == -1);
}

TEST_CASE("ResolveSampling.PrefersTheRequestThenTheModel") {
  const GenerationDefaults model = {.temperature = 0.8,
                                    .top_p = 0.7,
                                    .top_k = 20,
                                    .min_p = 0.1,
                                    .repetition_penalty = 1.2,
                                    .max_new_tokens = 30};
  const SamplingParams from_model = resolve_sampling({}, model, kLimits, 10).value();
  CHECK(from_model.temperature == 0.8f);
  CHECK(from_model.top_p == 0.7f);
  CHECK(from_model.top_k == 20);
  CHECK(from_model.min_p == 0.1f);
  CHECK(from_model.repetition_penalty == 1.2f);
  CHECK(from_model.max_tokens == 30);

  SamplingFields asked;
  asked.temperature = 0.0;
  asked.top_p = 1.0;
  asked.top_k = -1;
  asked.min_p = 0.0;
  asked.repetition_penalty = 1.0;
  asked.max_tokens = 5;
  asked.presence_penalty = 1.5;
  asked.frequency_penalty = -1.5;
  const SamplingParams from_request = resolve_sampling(asked, model, kLimits, 10).value();
  CHECK(from_request.temperature == 0.0f);
  CHECK(from_request.top_p == 1.0f);
  CHECK(from_request.top_k == 0);
  CHECK(from_request.min_p == 0.0f);
  CHECK(from_request.repetition_penalty == 1.0f);
  CHECK(from_request.max_tokens == 5);
  CHECK(from_request.presence_penalty == 1.5f);
  CHECK(from_request.frequency_penalty == -1.5f);
}

TEST_CASE("ResolveSampling.TakesATinyTemperatureAsGreedy") {
  SamplingFields asked;
  asked.temperature = 1e-9;
  CHECK(resolve_sampling(asked, {}, kLimits, 10).value().temperature == 0.0f);
}

TEST_CASE("ResolveSampling.ClipsMaxTokensToTheRoomLeft") {
  SamplingFields asked;
  asked.max_tokens = 1000;
  CHECK(resolve_sampling(asked, {}, kLimits, 99).value().max_tokens == 1);
  CHECK(resolve_sampling(asked, {}, kLimits, 1).value().max_tokens == 99);
}

TEST_CASE("ResolveSampling.RefusesAPromptThatIsTooLongWithItsLengthAndTheLimit") {
  const auto result = resolve_sampling({}, {}, kLimits, 120);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code == "context_length_exceeded");
  CHECK(result.error().status.message().find("120 tokens") != std::string::npos);
  CHECK(result.error().status.message().find("100") != std::string::npos);

  const EngineLimits no_room = {.max_model_len = 100, .vocab_size = 1000, .max_prompt_tokens = 200};
  CHECK_FALSE(resolve_sampling({}, {}, no_room, 100).ok());
}

TEST_CASE("ResolveSampling.RefusesMinTokensThatCannotBeReached") {
  SamplingFields asked;
  asked.min_tokens = 6;
  asked.max_tokens = 5;
  const auto result = resolve_sampling(asked, {}, kLimits, 10);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().param == "min_tokens");
  asked.min_tokens = 91;
  asked.max_tokens = 1000;
  CHECK_FALSE(resolve_sampling(asked, {}, kLimits, 10).ok());
  asked.min_tokens = 90;
  CHECK(resolve_sampling(asked, {}, kLimits, 10).ok());
}

TEST_CASE("ResolveSampling.PassesTokenListsOn") {
  SamplingFields asked;
  asked.logit_bias = {{3, 1.5f}};
  asked.stop_token_ids = {4, 5};
  asked.bad_words_token_ids = {6, 7};
  asked.ignore_eos = true;
  const SamplingParams p = resolve_sampling(asked, {}, kLimits, 10).value();
  CHECK(p.logit_bias.at(0).token == 3);
  CHECK(p.stop_token_ids == std::vector<TokenId>{4, 5});
  CHECK(p.bad_words == std::vector<std::vector<TokenId>>{{6}, {7}});
  CHECK(p.ignore_eos);
}

}  // namespace
}  // namespace flotilla::openai
