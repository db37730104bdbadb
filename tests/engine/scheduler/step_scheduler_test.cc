#include "engine/scheduler/step_scheduler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

using namespace flotilla;

namespace {

SequenceId id(uint64_t n) { return SequenceId(n); }
constexpr SchedulerLimits kLimits{
    .max_num_seqs = 4, .max_num_batched_tokens = 100, .block_size = 10};

}  // namespace

TEST_CASE("StepScheduler.MixesDecodesWithAChunkOfAPromptWithinTheTokenBudget") {
  const SchedulerInput input{
      .running = {{id(1), 51, 50, 6, false}, {id(2), 300, 40, 4, false}, {id(3), 21, 20, 2, false}},
      .waiting = {},
      .available_blocks = 50};
  const StepDecision d = schedule(input, kLimits);
  // The prompt gets what the two decodes leave.
  CHECK(d.scheduled == std::vector<ScheduledSequence>{
                           {id(1), 1, 0, false}, {id(2), 98, 10, false}, {id(3), 1, 1, false}});
}

TEST_CASE("StepScheduler.PreemptsTheYoungestWhenBlocksRunOut") {
  const SchedulerInput input{
      .running = {{id(1), 21, 20, 2, false}, {id(2), 21, 20, 2, false}, {id(3), 15, 14, 2, false}},
      .waiting = {{id(4), 5, 0, 0}},
      .available_blocks = 0};
  const StepDecision d = schedule(input, kLimits);
  CHECK(d.preempted == std::vector{id(3)});
  CHECK(d.scheduled == std::vector<ScheduledSequence>{{id(1), 1, 1, false}, {id(2), 1, 1, false}});
}

TEST_CASE("StepScheduler.WaitsAStepForBlocksOfAPreemptedSequenceInFlight") {
  const SchedulerInput input{.running = {{id(1), 21, 20, 2, false}, {id(2), 15, 14, 2, true}},
                             .waiting = {},
                             .available_blocks = 0};
  const StepDecision d = schedule(input, kLimits);
  CHECK(d.preempted == std::vector{id(2)});
  CHECK(d.scheduled.empty());
}

TEST_CASE("StepScheduler.AdmitsByArrivalAndNobodyPassesOneThatDoesNotFit") {
  const SchedulerInput input{.running = {{id(1), 11, 10, 1, false}},
                             .waiting = {{id(2), 200, 0, 0}, {id(3), 5, 0, 0}},
                             .available_blocks = 10};
  const StepDecision d = schedule(input, kLimits);
  CHECK(d.scheduled == std::vector<ScheduledSequence>{{id(1), 1, 1, false}});
}

TEST_CASE("StepScheduler.CountsCachedBlocksThatNobodyOwnsOnce") {
  const SchedulerInput input{.running = {}, .waiting = {{id(1), 35, 20, 2}}, .available_blocks = 4};
  CHECK(schedule(input, kLimits).scheduled == std::vector<ScheduledSequence>{{id(1), 15, 2, true}});
  const SchedulerInput tight{.running = {}, .waiting = {{id(1), 35, 20, 2}}, .available_blocks = 3};
  CHECK(schedule(tight, kLimits).scheduled.empty());
}

TEST_CASE("StepScheduler.KeepsTheBlocksThatARunningPromptWillNeed") {
  const SchedulerInput input{.running = {{id(1), 190, 0, 0, false}},
                             .waiting = {{id(2), 50, 0, 0}},
                             .available_blocks = 22};
  const StepDecision d = schedule(input, kLimits);
  CHECK(d.scheduled == std::vector<ScheduledSequence>{{id(1), 100, 10, false}});
}

TEST_CASE("StepScheduler.NeverRunsMoreSequencesThanAllowed") {
  SchedulerInput input{.running = {}, .waiting = {}, .available_blocks = 100};
  for (uint64_t i = 0; i < 10; ++i) input.waiting.push_back({id(i), 3, 0, 0});
  CHECK(schedule(input, kLimits).scheduled.size() == 4);
}

// A pool of 10 blocks and 50 sequences: whatever happens, blocks are never overdrawn and everybody
// finishes.
TEST_CASE("StepScheduler.FinishesEverybodyInAPoolThatIsFarTooSmall") {
  struct State {
    int32_t tokens, computed = 0, blocks = 0, to_produce;
  };
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    std::map<uint64_t, State> all;
    for (uint64_t i = 0; i < 50; ++i) {
      all[i] = {.tokens = 1 + static_cast<int32_t>(random() % 60),
                .to_produce = 1 + static_cast<int32_t>(random() % 40)};
    }
    std::vector<uint64_t> running, waiting;
    for (const auto& [n, s] : all) waiting.push_back(n);
    int32_t free = 10;
    int steps = 0;
    while (!running.empty() || !waiting.empty()) {
      REQUIRE(++steps < 20000);
      SchedulerInput input{.running = {}, .waiting = {}, .available_blocks = free};
      for (const uint64_t n : running)
        input.running.push_back({id(n), all[n].tokens, all[n].computed, all[n].blocks, false});
      for (const uint64_t n : waiting) input.waiting.push_back({id(n), all[n].tokens, 0, 0});
      const StepDecision d = schedule(input, kLimits);
      for (const SequenceId victim : d.preempted) {
        State& s = all[victim.value];
        free += s.blocks;
        s.blocks = s.computed = 0;
        std::erase(running, victim.value);
        waiting.insert(std::upper_bound(waiting.begin(), waiting.end(), victim.value),
                       victim.value);
      }
      for (const ScheduledSequence& scheduled : d.scheduled) {
        State& s = all[scheduled.id.value];
        if (scheduled.admitted) {
          std::erase(waiting, scheduled.id.value);
          running.insert(std::upper_bound(running.begin(), running.end(), scheduled.id.value),
                         scheduled.id.value);
        }
        s.blocks += scheduled.new_blocks;
        free -= scheduled.new_blocks;
        s.computed += scheduled.num_tokens;
        REQUIRE(s.computed <= s.blocks * 10);
        if (s.computed == s.tokens) {
          if (--s.to_produce == 0) {
            free += s.blocks;
            std::erase(running, scheduled.id.value);
          } else {
            ++s.tokens;
          }
        }
      }
      REQUIRE(free >= 0);
    }
    CHECK(free == 10);
  }
}
