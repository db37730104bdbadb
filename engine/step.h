// What one step works on, and what comes of it: values that the engine thread makes and the device
// thread runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/ids.h"
#include "common/status.h"
#include "engine/parallel/expert_exchange.h"
#include "engine/request.h"

namespace flotilla {

// How a sequence samples; shared by all its steps.
struct SequenceSampling {
  SamplingParams params;
  uint64_t seed = 0;
  uint32_t choice = 0;
  std::vector<TokenId>
      stop_ids;  // banned while fewer than min_tokens are produced: end-of-sequence and stop ids
};

// A sequence begins, or begins again, in a slot of the device's state (lengths, block table, last
// token, counts for penalties).
struct SlotReset {
  std::shared_ptr<const SequenceSampling> sampling;
  std::vector<TokenId> prompt;    // only if penalties need them
  std::vector<TokenId> produced;  // all so far, if penalties or bad words need them; `num_produced`
                                  // counts in any case
  uint32_t num_produced = 0;
  std::vector<BlockId> blocks;  // the table so far
};

struct StepSequence {
  SequenceId id;
  int32_t slot = 0;                        // of the device's state, 0 … max_num_seqs − 1
  std::shared_ptr<const SlotReset> reset;  // null: the slot goes on
  std::vector<BlockId> new_blocks;         // appended to the table
  int32_t position = 0;                    // of the first row
  int32_t num_tokens = 0;                  // rows, ≥ 1
  // Their ids; empty for a decode step whose token the device sampled in the step before.
  std::vector<TokenId> tokens;
  bool sample = false;  // the last row yields a token
  // Prompt log probabilities: of the tokens at positions position + 1 … position + targets.size().
  std::vector<TokenId> prompt_targets;
  int32_t prompt_top = 0;  // and of so many best ones at each
};

struct StepPlan {
  StepGrant grant;
  std::vector<StepSequence> sequences;
  int32_t prefill_tokens = 0;
  int32_t decode_tokens = 0;

  int32_t num_tokens() const { return prefill_tokens + decode_tokens; }
};

struct SequenceOutput {
  SequenceId id;
  TokenId token = -1;  // −1: no sample was asked for
  PositionLogprobs logprobs;
  std::vector<PositionLogprobs> prompt_logprobs;  // one per target
};

struct StepResult {
  Epoch epoch;
  StepIndex step;
  Status status;                        // kAborted: the epoch ended; nothing of the step counts
  std::vector<SequenceOutput> outputs;  // in the plan's order
  std::chrono::steady_clock::time_point started{}, finished{};
  std::chrono::nanoseconds exchange_wait{};  // time spent waiting for other ranks
};

}  // namespace flotilla
