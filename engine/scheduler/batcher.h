// All sequences of this rank: takes requests in, makes step plans of them, takes results back,
// gives token batches out. Holds the block pool and the prefix index. No thread, no model, no
// clock: a plan is a value, and so is a result.
//
// Steps may be planned while others run: a plan counts on the tokens that steps in flight will
// yield. A sequence found finished may therefore be part of one more step; that step's token is
// discarded, and its blocks are freed only after it. Threads: the engine thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_cache/block_pool.h"
#include "engine/kv_cache/prefix_index.h"
#include "engine/scheduler/sequence.h"
#include "engine/scheduler/step_scheduler.h"
#include "engine/step.h"

namespace flotilla {

class EngineMetrics;

struct BatcherOptions {
  SchedulerLimits limits;
  int32_t num_blocks = 0;
  int64_t max_model_len = 0;
  bool prefix_caching = true;
  std::vector<TokenId> eos_token_ids;
};

class Batcher {
 public:
  using Clock = std::chrono::steady_clock;

  // `metrics` may be null.
  Batcher(const BatcherOptions& options, EngineMetrics* metrics);
  ~Batcher();

  // The request was checked by check_request().
  void add(GenerationRequest request, TokenSink* sink);
  // The sequence's last batch says kCancelled; unknown ids are ignored.
  void cancel(const TokenSink* sink, uint64_t id);
  void cancel_all(const std::string& why);
  // Ends waiting sequences whose deadline has passed. The next deadline of a waiting one, or
  // time_point::max().
  Clock::time_point expire(Clock::time_point now);

  // The next step, empty if no sequence can run. It counts as in flight until commit() or
  // rollback().
  StepPlan plan(Clock::time_point now);
  // The result of the oldest step in flight.
  void commit(const StepResult& result);
  // Forgets all steps in flight: their sequences go on from their last collected token. Nothing was
  // emitted for them.
  void rollback();

  struct Emission {
    TokenSink* sink;
    TokenBatch batch;
  };
  std::vector<Emission> take_emissions();

  bool empty() const { return sequences_.empty(); }
  EngineLoad load() const;

 private:
  // What commit() must know of a planned step.
  struct InFlight {
    struct Part {
      SequenceId id;
      int32_t num_tokens;
      bool sample;
      int32_t first_target;  // position of the first prompt target
    };
    std::vector<Part> parts;
  };

  Sequence* find(SequenceId id);
  SchedulerInput scheduler_input();
  bool worth_waiting(const Sequence& waiting,
                     size_t cached_blocks,
                     const std::vector<const Sequence*>& before) const;
  void admit(Sequence& s, Clock::time_point now);
  void preempt(Sequence& s);
  StepSequence step_part(Sequence& s, const ScheduledSequence& scheduled);
  void commit_part(Sequence& s,
                   const InFlight::Part& part,
                   const SequenceOutput& output,
                   Clock::time_point at);
  void accept_token(Sequence& s, const SequenceOutput& output, Clock::time_point at);
  void publish_blocks(Sequence& s);
  TokenBatch& batch_of(Sequence& s);
  // Its last batch; the sequence stays until release_if_idle().
  void finish(Sequence& s, FinishReason reason, Status error = {});
  void end(Sequence& s, FinishReason reason, Status error = {});
  void release_if_idle(Sequence& s);
  void evicted(BlockId block);
  int32_t block_size() const { return options_.limits.block_size; }

  const BatcherOptions options_;
  EngineMetrics* const metrics_;
  BlockPool pool_;
  PrefixIndex index_;
  std::map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::map<SequenceId, Sequence*> running_, waiting_;
  std::vector<int32_t> free_slots_;
  std::deque<InFlight> in_flight_;
  uint64_t last_id_ = 0;
  std::vector<Emission> emissions_;
  std::map<SequenceId, size_t> emission_of_;  // place in emissions_ by sequence
};

// Bad ids, empty prompts and prompts that can never fit: kInvalidArgument with what was seen and
// what is allowed.
Status check_request(const GenerationRequest& request, const EngineLimits& limits);

}  // namespace flotilla
