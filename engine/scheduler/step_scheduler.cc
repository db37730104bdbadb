#include "engine/scheduler/step_scheduler.h"

#include <algorithm>
#include <set>

namespace flotilla {
namespace {

int32_t blocks_for(int32_t tokens, int32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

class StepBuilder {
 public:
  StepBuilder(const SchedulerInput& input, const SchedulerLimits& limits)
      : input_(input),
        limits_(limits),
        free_(input.available_blocks),
        budget_(limits.max_num_batched_tokens) {}

  StepDecision build() {
    decodes_left_ = static_cast<int32_t>(
        std::count_if(input_.running.begin(), input_.running.end(), is_decode));
    for (const RunningSequence& s : input_.running) {
      if (is_decode(s)) --decodes_left_;
      if (!preempted_.contains(s.id)) run(s);
    }
    if (decision_.preempted.empty()) admit();
    return std::move(decision_);
  }

 private:
  static bool is_decode(const RunningSequence& s) { return s.num_tokens - s.num_computed == 1; }

  void run(const RunningSequence& s) {
    // Room is kept for every decode that comes later: a long prompt never makes them skip a step.
    const int32_t wanted = std::min(s.num_tokens - s.num_computed, budget_ - decodes_left_);
    if (wanted <= 0) return;
    while (true) {
      const int32_t reachable = (s.num_blocks + free_) * limits_.block_size - s.num_computed;
      const int32_t tokens = std::min(wanted, reachable);
      if (tokens >= 1) {
        const int32_t blocks = blocks_for(s.num_computed + tokens, limits_.block_size);
        const int32_t new_blocks = std::max(0, blocks - s.num_blocks);
        free_ -= new_blocks;
        budget_ -= tokens;
        promised_ += std::max(
            0, blocks_for(s.num_tokens, limits_.block_size) - std::max(blocks, s.num_blocks));
        decision_.scheduled.push_back({s.id, tokens, new_blocks, false});
        return;
      }
      if (!preempt_youngest(s)) return;
    }
  }

  // Takes the blocks of the youngest running sequence that still has them, down to `s` itself.
  // False if nothing came free for `s`.
  bool preempt_youngest(const RunningSequence& s) {
    for (auto victim = input_.running.rbegin(); victim != input_.running.rend(); ++victim) {
      if (preempted_.contains(victim->id)) continue;
      preempted_.insert(victim->id);
      decision_.preempted.push_back(victim->id);
      if (victim->id == s.id || victim->in_flight)
        return false;  // blocks in flight come later: wait a step
      free_ += victim->num_blocks;
      return true;
    }
    return false;
  }

  void admit() {
    auto running = static_cast<int32_t>(input_.running.size());
    free_ -= promised_;
    for (const WaitingSequence& w : input_.waiting) {
      if (running >= limits_.max_num_seqs || budget_ <= 0) return;
      const int32_t cached_blocks = w.cached_tokens / limits_.block_size;
      const int32_t all = blocks_for(w.num_tokens, limits_.block_size) - cached_blocks;
      const int32_t usable = free_ - w.cached_idle_blocks;
      // One block each lets those who run go on for a while before anybody has to give way.
      if (running == 0 ? all > usable : all + running > usable) return;
      const int32_t tokens = std::min(w.num_tokens - w.cached_tokens, budget_);
      const int32_t new_blocks =
          blocks_for(w.cached_tokens + tokens, limits_.block_size) - cached_blocks;
      // The whole prompt's blocks are spoken for, also those of later chunks.
      free_ = usable - all;
      budget_ -= tokens;
      ++running;
      decision_.scheduled.push_back({w.id, tokens, new_blocks, true});
    }
  }

  const SchedulerInput& input_;
  const SchedulerLimits& limits_;
  int32_t free_;
  int32_t budget_;
  int32_t decodes_left_ = 0;  // decoding sequences that come later in this step
  int32_t promised_ = 0;      // blocks that running prompts still need for their later chunks
  std::set<SequenceId> preempted_;
  StepDecision decision_;
};

}  // namespace

StepDecision schedule(const SchedulerInput& input, const SchedulerLimits& limits) {
  return StepBuilder(input, limits).build();
}

}  // namespace flotilla
