// Which sequences run in the next step, with how many tokens, and who gives way when blocks run
// out. A pure function: values in, a value out; nothing here knows a model, a request or a clock.
//
// Running sequences go by arrival, decodes with one token each, prompts in chunks that leave room
// for every decode; then new sequences by arrival. When a running sequence gets no block, the
// youngest running one is preempted: its blocks are freed and its tokens computed again later, its
// output kept. So the oldest always advances. A new sequence is admitted only if all its known
// tokens fit (and one block per running sequence stays free), nobody was preempted in this step,
// and everybody before it in the queue was admitted.
#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace flotilla {

struct SchedulerLimits {
  int32_t max_num_seqs = 64;              // running at once
  int32_t max_num_batched_tokens = 2048;  // rows of one step
  int32_t block_size = 64;
};

struct RunningSequence {
  SequenceId id;
  int32_t num_tokens = 0;    // known: prompt, produced and those being sampled by steps in flight
  int32_t num_computed = 0;  // whose K and V submitted steps write; num_tokens − 1 when decoding
  int32_t num_blocks = 0;    // held
  bool in_flight = false;  // part of a submitted step: its blocks come free only when that is over
};

struct WaitingSequence {
  SequenceId id;
  int32_t num_tokens = 0;
  int32_t cached_tokens = 0;  // whole blocks found in the prefix cache
  int32_t cached_idle_blocks =
      0;  // of these, blocks that nobody owns: available until they are used
};

struct SchedulerInput {
  std::vector<RunningSequence> running;  // by arrival
  std::vector<WaitingSequence> waiting;  // by arrival
  int32_t available_blocks = 0;
};

struct ScheduledSequence {
  SequenceId id;
  int32_t num_tokens = 0;  // rows in this step, ≥ 1
  int32_t new_blocks = 0;  // to allocate first
  bool admitted = false;   // was waiting

  bool operator==(const ScheduledSequence&) const = default;
};

struct StepDecision {
  std::vector<ScheduledSequence> scheduled;
  std::vector<SequenceId> preempted;  // never also scheduled

  bool operator==(const StepDecision&) const = default;
};

StepDecision schedule(const SchedulerInput& input, const SchedulerLimits& limits);

}  // namespace flotilla
