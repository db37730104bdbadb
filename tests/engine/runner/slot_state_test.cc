#include "engine/runner/slot_state.h"

#include <doctest/doctest.h>

using namespace flotilla;

namespace {

std::shared_ptr<const SequenceSampling> sampling(SamplingParams params,
                                                 std::vector<TokenId> stop_ids = {}) {
  auto s = std::make_shared<SequenceSampling>();
  s->params = std::move(params);
  s->seed = 9;
  s->choice = 2;
  s->stop_ids = std::move(stop_ids);
  return s;
}

SamplerBatch row_of(const SlotState& slot, int64_t position = 10) {
  SamplerBatch batch;
  slot.add_sampler_row(position, &batch);
  return batch;
}

}  // namespace

TEST_CASE("SlotState.CountsProducedTokensAndKnowsThePromptsForThePenalties") {
  SlotState slot;
  slot.reset({.sampling = sampling({.presence_penalty = 1.0f}),
              .prompt = {5, 6, 5},
              .produced = {6, 7},
              .num_produced = 2,
              .blocks = {}});
  slot.append(7);
  const SamplerBatch batch = row_of(slot);
  REQUIRE(batch.seen.size() == 3);
  CHECK((batch.seen[0].token == 5 && batch.seen[0].produced == 0));
  CHECK((batch.seen[1].token == 6 && batch.seen[1].produced == 1));
  CHECK((batch.seen[2].token == 7 && batch.seen[2].produced == 2));
  CHECK(batch.rows[0].seen_end == 3);
  CHECK(slot.last_token() == 7);
}

TEST_CASE("SlotState.KeepsNothingWithoutPenalties") {
  SlotState slot;
  slot.reset({.sampling = sampling({}),
              .prompt = {},
              .produced = {},
              .num_produced = 0,
              .blocks = {BlockId(3)}});
  slot.append_blocks({BlockId(4)});
  slot.append(7);
  const SamplerBatch batch = row_of(slot, 42);
  CHECK(batch.seen.empty());
  CHECK(batch.rows[0].position == 42);
  CHECK(batch.rows[0].seed == 9);
  CHECK(batch.rows[0].choice == 2);
  CHECK(slot.table() == std::vector{BlockId(3), BlockId(4)});
}

TEST_CASE("SlotState.BansStopTokensUntilMinTokensAreProduced") {
  SlotState slot;
  slot.reset({.sampling = sampling({.min_tokens = 2}, {50, 51}),
              .prompt = {},
              .produced = {},
              .num_produced = 1,
              .blocks = {}});
  CHECK(row_of(slot).banned == std::vector<int32_t>{50, 51});
  slot.append(1);
  CHECK(row_of(slot).banned.empty());
}

TEST_CASE("SlotState.BansTheLastTokenOfABadWordWhileTheOthersMatch") {
  SlotState slot;
  slot.reset({.sampling = sampling({.bad_words = {{8}, {1, 2, 3}}}),
              .prompt = {},
              .produced = {1},
              .num_produced = 1,
              .blocks = {}});
  CHECK(row_of(slot).banned == std::vector<int32_t>{8});
  slot.append(2);
  CHECK(row_of(slot).banned == std::vector<int32_t>{8, 3});
  slot.append(2);
  CHECK(row_of(slot).banned == std::vector<int32_t>{8});
}

TEST_CASE("SlotState.RowsOfSeveralSequencesShareTheArrays") {
  SlotState a, b;
  a.reset({.sampling = sampling({.logit_bias = {{1, 2.0f}}}),
           .prompt = {},
           .produced = {},
           .num_produced = 0,
           .blocks = {}});
  b.reset({.sampling = sampling({.logit_bias = {{3, 4.0f}, {5, 6.0f}}}),
           .prompt = {},
           .produced = {},
           .num_produced = 0,
           .blocks = {}});
  SamplerBatch batch;
  a.add_sampler_row(0, &batch);
  b.add_sampler_row(0, &batch);
  CHECK(batch.rows[1].bias_begin == 1);
  CHECK(batch.rows[1].bias_end == 3);
  CHECK(batch.bias[2].token == 5);
}
