// One sequence in progress: how far it is, what it holds. Owned by the Batcher; engine thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/ids.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/step.h"

namespace flotilla {

struct Sequence {
  SequenceId id;  // grows with arrival
  GenerationRequest request;
  TokenSink* sink = nullptr;
  std::shared_ptr<const SequenceSampling> sampling;

  std::vector<TokenId> tokens;  // prompt and produced, as far as steps have been collected
  int32_t num_prompt = 0;
  int32_t max_total = 0;  // tokens.size() never exceeds it

  int32_t computed = 0;           // tokens whose K and V are written by collected steps
  int32_t planned = 0;            // … by submitted steps, too
  int32_t samples_in_flight = 0;  // tokens that submitted steps will yield
  int32_t steps_in_flight = 0;

  std::vector<BlockId> blocks;
  int32_t slot = -1;        // of the device's state; −1: none
  bool fresh_slot = false;  // the device's state must be set up with the next step
  bool running = false;     // as against waiting
  bool finished = false;    // its last batch is out; kept until no step works on it

  // The prefix index knows the first `indexed_blocks` blocks' content; the last of them as
  // `index_parent`.
  size_t indexed_blocks = 0;
  BlockId index_parent{-1};
  bool indexing = true;

  uint32_t cached_tokens = 0;  // at the first admission
  bool was_admitted = false;
  std::vector<PositionLogprobs> prompt_logprobs;  // by position, if asked for
  bool prompt_logprobs_sent = false;
  std::chrono::steady_clock::time_point scheduled_at{};

  int32_t known() const { return static_cast<int32_t>(tokens.size()) + samples_in_flight; }
  int32_t num_produced() const { return static_cast<int32_t>(tokens.size()) - num_prompt; }
  // Another token may be sampled besides those in flight.
  bool may_grow() const { return known() < max_total; }
};

}  // namespace flotilla
