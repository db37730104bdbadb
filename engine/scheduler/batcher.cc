#include "engine/scheduler/batcher.h"

#include <algorithm>
#include <limits>

#include "common/log.h"
#include "engine/metrics.h"

namespace flotilla {
namespace {

// Waiting sequences looked at in one step: prefix look-ups cost time, and more could not be
// admitted anyway.
constexpr size_t kMaxCandidates = 16;

bool needs_counts(const SamplingParams& p) {
  return p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f || p.repetition_penalty != 1.0f;
}

}  // namespace

namespace {

Status check_ids(const std::vector<TokenId>& ids,
                 const EngineLimits& limits,
                 std::string_view what) {
  for (const TokenId id : ids) {
    if (id >= 0 && id < limits.vocab_size) continue;
    return invalid_argument(std::string(what) + " has token id " + std::to_string(id) +
                            ", the vocabulary is 0 to " + std::to_string(limits.vocab_size - 1));
  }
  return ok_status();
}

Status check_range(float value, float low, float high, const char* name) {
  if (value >= low && value <= high) return ok_status();  // false for NaN
  return invalid_argument(std::string(name) + " is " + std::to_string(value) + ", allowed are " +
                          std::to_string(low) + " to " + std::to_string(high));
}

// The front has refused most of this already; what comes by the queue port is checked here only,
// and the device trusts it.
Status check_sampling(const SamplingParams& p, const EngineLimits& limits) {
  constexpr float kMax = std::numeric_limits<float>::max();
  FLOTILLA_RETURN_IF_ERROR(check_range(p.temperature, 0.0f, kMax, "temperature"));
  FLOTILLA_RETURN_IF_ERROR(check_range(p.top_p, 0.0f, 1.0f, "top_p"));
  FLOTILLA_RETURN_IF_ERROR(check_range(p.min_p, 0.0f, 1.0f, "min_p"));
  FLOTILLA_RETURN_IF_ERROR(check_range(p.presence_penalty, -2.0f, 2.0f, "presence_penalty"));
  FLOTILLA_RETURN_IF_ERROR(check_range(p.frequency_penalty, -2.0f, 2.0f, "frequency_penalty"));
  FLOTILLA_RETURN_IF_ERROR(check_range(
      p.repetition_penalty, std::numeric_limits<float>::min(), kMax, "repetition_penalty"));
  for (const TokenBias& b : p.logit_bias) {
    FLOTILLA_RETURN_IF_ERROR(check_ids({b.token}, limits, "logit_bias"));
    FLOTILLA_RETURN_IF_ERROR(check_range(b.bias, -kMax, kMax, "logit_bias"));
  }
  for (const std::vector<TokenId>& word : p.bad_words) {
    if (word.empty()) return invalid_argument("bad_words holds an empty list of token ids");
    FLOTILLA_RETURN_IF_ERROR(check_ids(word, limits, "bad_words"));
  }
  FLOTILLA_RETURN_IF_ERROR(check_ids(p.stop_token_ids, limits, "stop_token_ids"));
  for (const int32_t n : {p.logprobs, p.prompt_logprobs}) {
    if (n < -1 || n > limits.vocab_size)
      return invalid_argument("logprobs is " + std::to_string(n) +
                              ", allowed are -1 to the vocabulary's size");
  }
  if (p.max_tokens == 0) return invalid_argument("max_tokens is 0, at least 1 is needed");
  return ok_status();
}

}  // namespace

Status check_request(const GenerationRequest& request, const EngineLimits& limits) {
  if (request.prompt.empty()) return invalid_argument("the prompt has no tokens");
  const auto length = static_cast<int64_t>(request.prompt.size() + request.produced.size());
  if (length > limits.max_prompt_tokens) {
    return invalid_argument("the prompt has " + std::to_string(length) + " tokens, at most " +
                            std::to_string(limits.max_prompt_tokens) +
                            " fit (--max-model-len and the KV cache, less one token to produce)");
  }
  FLOTILLA_RETURN_IF_ERROR(check_ids(request.prompt, limits, "the prompt"));
  FLOTILLA_RETURN_IF_ERROR(check_ids(request.produced, limits, "the produced text"));
  return check_sampling(request.sampling, limits);
}

Batcher::Batcher(const BatcherOptions& options, EngineMetrics* metrics)
    : options_(options),
      metrics_(metrics),
      pool_(options.num_blocks),
      index_(options.limits.block_size) {
  for (int32_t slot = options.limits.max_num_seqs; slot-- > 0;) free_slots_.push_back(slot);
  pool_.on_evict([this](BlockId block) { evicted(block); });
}

Batcher::~Batcher() = default;

Sequence* Batcher::find(SequenceId id) {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

void Batcher::add(GenerationRequest request, TokenSink* sink) {
  auto owned = std::make_unique<Sequence>();
  Sequence& s = *owned;
  s.id = SequenceId(++last_id_);
  s.sink = sink;
  s.tokens = request.prompt;
  s.tokens.insert(s.tokens.end(), request.produced.begin(), request.produced.end());
  s.num_prompt = static_cast<int32_t>(request.prompt.size());
  const int64_t capacity = int64_t{options_.num_blocks} * block_size();
  s.max_total = static_cast<int32_t>(std::min(
      {int64_t{s.num_prompt} + request.sampling.max_tokens, options_.max_model_len, capacity}));
  auto sampling = std::make_shared<SequenceSampling>();
  sampling->params = request.sampling;
  sampling->seed = request.seed;
  sampling->choice = request.choice;
  sampling->stop_ids = request.sampling.stop_token_ids;
  sampling->stop_ids.insert(
      sampling->stop_ids.end(), options_.eos_token_ids.begin(), options_.eos_token_ids.end());
  s.sampling = std::move(sampling);
  if (request.sampling.prompt_logprobs >= 0) s.prompt_logprobs.resize(request.prompt.size());
  s.request = std::move(request);
  sequences_.emplace(s.id, std::move(owned));
  if (s.known() >= s.max_total)
    return end(s, FinishReason::kLength);  // placed again with everything produced
  waiting_.emplace(s.id, &s);
}

void Batcher::cancel(const TokenSink* sink, uint64_t id) {
  for (auto& [sequence_id, s] : sequences_) {
    if (s->sink != sink || s->request.id != id || s->finished) continue;
    if (metrics_) metrics_->cancelled();
    return end(*s, FinishReason::kCancelled);
  }
}

void Batcher::cancel_all(const std::string& why) {
  std::vector<Sequence*> all;
  for (auto& [id, s] : sequences_) {
    if (!s->finished) all.push_back(s.get());
  }
  for (Sequence* s : all) end(*s, FinishReason::kCancelled, cancelled(why));
}

Batcher::Clock::time_point Batcher::expire(Clock::time_point now) {
  Clock::time_point next = Clock::time_point::max();
  std::vector<Sequence*> late;
  for (auto& [id, s] : waiting_) {
    if (!s->request.deadline || s->was_admitted) continue;
    if (*s->request.deadline <= now) {
      late.push_back(s);
    } else {
      next = std::min(next, *s->request.deadline);
    }
  }
  for (Sequence* s : late)
    end(*s, FinishReason::kError, deadline_exceeded("the request waited too long for its turn"));
  return next;
}

// Another prompt, running or before this one in the queue, is about to compute blocks that this one
// shares: waiting for them is cheaper than computing them, too.
bool Batcher::worth_waiting(const Sequence& waiting,
                            size_t cached_blocks,
                            const std::vector<const Sequence*>& before) const {
  const auto size = static_cast<size_t>(block_size());
  const size_t useful = (waiting.tokens.size() - 1) / size;
  if (cached_blocks >= useful) return false;
  return std::any_of(before.begin(), before.end(), [&](const Sequence* s) {
    const size_t limit = std::min(useful, s->tokens.size() / size) * size;
    const auto end = s->tokens.begin() + static_cast<ptrdiff_t>(limit);
    const auto same =
        std::mismatch(s->tokens.begin(), end, waiting.tokens.begin()).first - s->tokens.begin();
    const size_t shared = static_cast<size_t>(same) / size;
    return shared > cached_blocks && static_cast<size_t>(s->computed) < shared * size;
  });
}

SchedulerInput Batcher::scheduler_input() {
  SchedulerInput input{.running = {}, .waiting = {}, .available_blocks = pool_.num_available()};
  for (const auto& [id, s] : running_) {
    if (s->known() - s->planned == 1 && !s->may_grow()) continue;  // its last token is in flight
    if (s->known() == s->planned) continue;
    input.running.push_back({.id = id,
                             .num_tokens = s->known(),
                             .num_computed = s->planned,
                             .num_blocks = static_cast<int32_t>(s->blocks.size()),
                             .in_flight = s->steps_in_flight > 0});
  }
  const size_t wanted = std::min(free_slots_.size(), kMaxCandidates);
  std::vector<const Sequence*> computing;
  for (const auto& [id, s] : running_) {
    if (s->indexing && s->computed < s->num_prompt) computing.push_back(s);
  }
  for (const auto& [id, s] : waiting_) {
    if (input.waiting.size() >= wanted) break;
    if (s->steps_in_flight > 0) continue;  // preempted, its blocks are still in use
    std::vector<BlockId> cached;
    if (options_.prefix_caching && s->request.sampling.prompt_logprobs < 0) {
      cached = index_.find(s->tokens, (s->tokens.size() - 1) / static_cast<size_t>(block_size()));
      if (worth_waiting(*s, cached.size(), computing)) continue;
      computing.push_back(s);
    }
    const auto idle =
        std::count_if(cached.begin(), cached.end(), [&](BlockId b) { return !pool_.owned(b); });
    input.waiting.push_back({.id = id,
                             .num_tokens = s->known(),
                             .cached_tokens = static_cast<int32_t>(cached.size()) * block_size(),
                             .cached_idle_blocks = static_cast<int32_t>(idle)});
  }
  return input;
}

void Batcher::admit(Sequence& s, Clock::time_point now) {
  if (options_.prefix_caching && s.request.sampling.prompt_logprobs < 0) {
    s.blocks = index_.find(s.tokens, (s.tokens.size() - 1) / static_cast<size_t>(block_size()));
    for (const BlockId block : s.blocks) pool_.share(block);
  }
  s.computed = s.planned = static_cast<int32_t>(s.blocks.size()) * block_size();
  s.indexed_blocks = s.blocks.size();
  s.index_parent = s.blocks.empty() ? BlockId(-1) : s.blocks.back();
  s.indexing = options_.prefix_caching;
  s.slot = free_slots_.back();
  free_slots_.pop_back();
  s.fresh_slot = true;
  s.running = true;
  waiting_.erase(s.id);
  running_.emplace(s.id, &s);
  if (s.was_admitted) {
    if (metrics_) metrics_->resumed();
    return;
  }
  s.was_admitted = true;
  s.scheduled_at = now;
  s.cached_tokens = static_cast<uint32_t>(std::min(s.computed, s.num_prompt));
  if (metrics_) metrics_->prompt_admitted(static_cast<uint64_t>(s.num_prompt), s.cached_tokens);
}

void Batcher::preempt(Sequence& s) {
  log_debug("preempted", {{"request_id", s.request.request_id}, {"tokens", s.tokens.size()}});
  if (metrics_) metrics_->preempted();
  running_.erase(s.id);
  waiting_.emplace(s.id, &s);
  s.running = false;
  release_if_idle(s);
}

void Batcher::release_if_idle(Sequence& s) {
  if (s.steps_in_flight > 0 || s.running) return;
  pool_.release(s.blocks);
  s.blocks.clear();
  s.computed = s.planned = 0;
  if (s.slot >= 0) free_slots_.push_back(std::exchange(s.slot, -1));
  if (s.finished) sequences_.erase(s.id);
}

StepPlan Batcher::plan(Clock::time_point now) {
  SchedulerLimits limits = options_.limits;
  const SchedulerInput input = scheduler_input();
  limits.max_num_seqs = static_cast<int32_t>(input.running.size() + free_slots_.size());
  const StepDecision decision = schedule(input, limits);
  for (const SequenceId id : decision.preempted) preempt(*find(id));
  StepPlan plan;
  InFlight flight;
  for (const ScheduledSequence& scheduled : decision.scheduled) {
    Sequence& s = *find(scheduled.id);
    if (scheduled.admitted) admit(s, now);
    const bool decode = scheduled.num_tokens == 1 && s.num_produced() + s.samples_in_flight > 0;
    (decode ? plan.decode_tokens : plan.prefill_tokens) += scheduled.num_tokens;
    StepSequence& part = plan.sequences.emplace_back(step_part(s, scheduled));
    flight.parts.push_back({.id = s.id,
                            .num_tokens = part.num_tokens,
                            .sample = part.sample,
                            .first_target = part.position + 1});
  }
  if (!plan.sequences.empty()) in_flight_.push_back(std::move(flight));
  return plan;
}

StepSequence Batcher::step_part(Sequence& s, const ScheduledSequence& scheduled) {
  StepSequence part;
  part.id = s.id;
  part.slot = s.slot;
  part.position = s.planned;
  part.num_tokens = scheduled.num_tokens;
  auto blocks = pool_.try_allocate(scheduled.new_blocks);
  check(blocks.has_value(), "the scheduler gave out more blocks than there are");
  if (s.fresh_slot) {
    auto reset = std::make_shared<SlotReset>();
    reset->sampling = s.sampling;
    reset->num_produced = static_cast<uint32_t>(s.num_produced());
    if (needs_counts(s.sampling->params))
      reset->prompt.assign(s.tokens.begin(), s.tokens.begin() + s.num_prompt);
    if (needs_counts(s.sampling->params) || !s.sampling->params.bad_words.empty()) {
      reset->produced.assign(s.tokens.begin() + s.num_prompt, s.tokens.end());
    }
    reset->blocks = s.blocks;
    part.reset = std::move(reset);
    s.fresh_slot = false;
  }
  s.blocks.insert(s.blocks.end(), blocks->begin(), blocks->end());
  part.new_blocks = std::move(*blocks);
  const int32_t end = part.position + part.num_tokens;
  if (end <= static_cast<int32_t>(s.tokens.size())) {
    part.tokens.assign(s.tokens.begin() + part.position, s.tokens.begin() + end);
  } else {
    check(part.num_tokens == 1, "only a decode step may lack its token");
  }
  part.sample = end == s.known();
  if (!s.prompt_logprobs.empty()) {
    const int32_t last = std::min(end, s.num_prompt - 1);
    for (int32_t p = part.position + 1; p <= last; ++p)
      part.prompt_targets.push_back(s.tokens[static_cast<size_t>(p)]);
    part.prompt_top = s.request.sampling.prompt_logprobs;
  }
  s.planned = end;
  ++s.steps_in_flight;
  if (part.sample) ++s.samples_in_flight;
  return part;
}

void Batcher::commit(const StepResult& result) {
  check(!in_flight_.empty(), "a result without a step");
  const InFlight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  emission_of_.clear();
  uint64_t sampled = 0;
  for (size_t i = 0; i < flight.parts.size(); ++i) {
    const InFlight::Part& part = flight.parts[i];
    Sequence& s = *find(part.id);
    check(result.outputs[i].id == part.id, "results come in the plan's order");
    --s.steps_in_flight;
    if (part.sample) --s.samples_in_flight;
    if (!s.finished) {
      commit_part(s, part, result.outputs[i], result.finished);
      sampled += part.sample;
    }
    release_if_idle(s);
  }
  if (metrics_ && sampled > 0) metrics_->tokens_sampled(sampled);
}

void Batcher::commit_part(Sequence& s,
                          const InFlight::Part& part,
                          const SequenceOutput& output,
                          Clock::time_point at) {
  for (size_t i = 0; i < output.prompt_logprobs.size(); ++i) {
    s.prompt_logprobs[static_cast<size_t>(part.first_target) + i] = output.prompt_logprobs[i];
  }
  s.computed += part.num_tokens;
  if (part.sample) accept_token(s, output, at);
  if (s.indexing) publish_blocks(s);
}

TokenBatch& Batcher::batch_of(Sequence& s) {
  const auto [it, added] = emission_of_.emplace(s.id, emissions_.size());
  if (added) {
    TokenBatch batch;
    batch.id = s.request.id;
    batch.generation = s.request.generation;
    batch.first_index = static_cast<uint32_t>(s.num_produced());
    batch.cached_tokens = s.cached_tokens;
    batch.scheduled_at = s.scheduled_at;
    emissions_.push_back({s.sink, std::move(batch)});
  }
  return emissions_[it->second].batch;
}

void Batcher::accept_token(Sequence& s, const SequenceOutput& output, Clock::time_point at) {
  TokenBatch& batch = batch_of(s);
  batch.produced_at = at;
  if (!s.prompt_logprobs.empty() && !s.prompt_logprobs_sent) {
    batch.prompt_logprobs = s.prompt_logprobs;
    s.prompt_logprobs_sent = true;
  }
  const SamplingParams& p = s.request.sampling;
  const auto contains = [&](const std::vector<TokenId>& ids) {
    return std::find(ids.begin(), ids.end(), output.token) != ids.end();
  };
  const bool may_stop = s.num_produced() >= static_cast<int32_t>(p.min_tokens);
  if (may_stop &&
      (contains(p.stop_token_ids) || (!p.ignore_eos && contains(options_.eos_token_ids)))) {
    batch.stop_token = output.token;
    return finish(s, FinishReason::kStop);
  }
  s.tokens.push_back(output.token);
  batch.tokens.push_back(output.token);
  if (p.logprobs >= 0) batch.logprobs.push_back(output.logprobs);
  if (static_cast<int32_t>(s.tokens.size()) >= s.max_total) finish(s, FinishReason::kLength);
}

void Batcher::finish(Sequence& s, FinishReason reason, Status error) {
  TokenBatch& batch = batch_of(s);
  batch.finish = reason;
  batch.error = std::move(error);
  s.finished = true;
  if (!s.running && s.was_admitted && metrics_)
    metrics_->resumed();  // it no longer waits as a preempted one
  running_.erase(s.id);
  waiting_.erase(s.id);
  s.running = false;
}

void Batcher::end(Sequence& s, FinishReason reason, Status error) {
  finish(s, reason, std::move(error));
  release_if_idle(s);
}

std::vector<Batcher::Emission> Batcher::take_emissions() {
  emission_of_.clear();
  return std::exchange(emissions_, {});
}

void Batcher::publish_blocks(Sequence& s) {
  const auto size = static_cast<size_t>(block_size());
  while ((s.indexed_blocks + 1) * size <= static_cast<size_t>(s.computed)) {
    const std::span<const TokenId> content(s.tokens.data() + s.indexed_blocks * size, size);
    const BlockId block = s.blocks[s.indexed_blocks];
    const BlockId known = index_.child(s.index_parent, content);
    if (known.value >= 0) {
      s.index_parent =
          known;  // another sequence was first: its block serves, this one stays private
    } else if (index_.insert(s.index_parent, content, block)) {
      pool_.set_cached(block, true);
      s.index_parent = block;
    } else {
      s.indexing = false;  // the chain before it was evicted
      return;
    }
    ++s.indexed_blocks;
  }
}

void Batcher::evicted(BlockId block) {
  std::vector<BlockId> orphaned;
  index_.erase(block, &orphaned);
  for (const BlockId orphan : orphaned) pool_.set_cached(orphan, false);
}

void Batcher::rollback() {
  in_flight_.clear();
  std::vector<Sequence*> all;
  for (auto& [id, s] : sequences_) all.push_back(s.get());
  for (Sequence* s : all) {
    s->steps_in_flight = s->samples_in_flight = 0;
    s->planned = s->computed;
    s->fresh_slot = s->slot >= 0;
    release_if_idle(*s);
  }
}

EngineLoad Batcher::load() const {
  EngineLoad load;
  load.running = static_cast<uint32_t>(running_.size());
  load.waiting = static_cast<uint32_t>(waiting_.size());
  load.blocks_total = static_cast<uint64_t>(pool_.num_blocks());
  load.blocks_used = static_cast<uint64_t>(pool_.num_blocks() - pool_.num_available());
  for (const auto* set : {&running_, &waiting_}) {
    for (const auto& [id, s] : *set)
      load.tokens_to_prefill += static_cast<uint64_t>(std::max(0, s->known() - s->planned - 1));
  }
  return load;
}

}  // namespace flotilla
