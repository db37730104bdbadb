#include "engine/dispatch/queue_messages.h"

namespace flotilla {
namespace {

void to_wire(const TokenLogprob& from, wire::LogProb* out) {
  out->set_token(from.token);
  out->set_logprob(from.logprob);
  out->set_rank(static_cast<uint32_t>(from.rank));
}
TokenLogprob from_wire(const wire::LogProb& from) {
  return {
      .token = from.token(), .logprob = from.logprob(), .rank = static_cast<int32_t>(from.rank())};
}

void to_wire(const PositionLogprobs& from, wire::TokenLogProbs* out) {
  if (from.chosen.token >= 0) to_wire(from.chosen, out->mutable_sampled());
  for (const TokenLogprob& top : from.top) to_wire(top, out->add_top());
}
PositionLogprobs from_wire(const wire::TokenLogProbs& from) {
  PositionLogprobs out;
  if (from.has_sampled()) out.chosen = from_wire(from.sampled());
  for (const wire::LogProb& top : from.top()) out.top.push_back(from_wire(top));
  return out;
}

}  // namespace

void to_wire(const GenerationRequest& r,
             std::chrono::steady_clock::time_point now,
             wire::Submit* out) {
  out->set_id(r.id);
  out->set_generation(r.generation);
  out->mutable_prompt()->Assign(r.prompt.begin(), r.prompt.end());
  out->mutable_produced()->Assign(r.produced.begin(), r.produced.end());
  out->set_seed(r.seed);
  out->set_choice(r.choice);
  out->set_request_id(r.request_id);
  if (r.deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*r.deadline - now).count();
    out->set_deadline_ms(static_cast<uint64_t>(std::max<int64_t>(1, left)));
  }
  const SamplingParams& p = r.sampling;
  wire::Sampling& s = *out->mutable_sampling();
  s.set_temperature(p.temperature);
  s.set_top_p(p.top_p);
  s.set_top_k(p.top_k);
  s.set_min_p(p.min_p);
  s.set_presence_penalty(p.presence_penalty);
  s.set_frequency_penalty(p.frequency_penalty);
  s.set_repetition_penalty(p.repetition_penalty);
  for (const TokenBias& b : p.logit_bias) {
    wire::TokenBias& bias = *s.add_logit_bias();
    bias.set_token(b.token);
    bias.set_bias(b.bias);
  }
  for (const std::vector<TokenId>& word : p.bad_words)
    s.add_bad_words()->mutable_token_ids()->Assign(word.begin(), word.end());
  s.set_min_tokens(p.min_tokens);
  s.set_max_tokens(p.max_tokens);
  s.mutable_stop_token_ids()->Assign(p.stop_token_ids.begin(), p.stop_token_ids.end());
  s.set_ignore_eos(p.ignore_eos);
  s.set_logprobs(p.logprobs);
  s.set_prompt_logprobs(p.prompt_logprobs);
}

GenerationRequest from_wire(const wire::Submit& from, std::chrono::steady_clock::time_point now) {
  GenerationRequest r;
  r.id = from.id();
  r.generation = from.generation();
  r.request_id = from.request_id();
  r.prompt.assign(from.prompt().begin(), from.prompt().end());
  r.produced.assign(from.produced().begin(), from.produced().end());
  r.seed = from.seed();
  r.choice = from.choice();
  r.arrival = now;
  if (from.deadline_ms() > 0)
    r.deadline = now + std::chrono::milliseconds(std::min<uint64_t>(from.deadline_ms(), 1u << 31));
  const wire::Sampling& s = from.sampling();
  SamplingParams& p = r.sampling;
  p.temperature = s.temperature();
  p.top_p = s.top_p();
  p.top_k = s.top_k();
  p.min_p = s.min_p();
  p.presence_penalty = s.presence_penalty();
  p.frequency_penalty = s.frequency_penalty();
  p.repetition_penalty = s.repetition_penalty();
  for (const wire::TokenBias& b : s.logit_bias()) p.logit_bias.push_back({b.token(), b.bias()});
  for (const wire::BadWords& word : s.bad_words())
    p.bad_words.emplace_back(word.token_ids().begin(), word.token_ids().end());
  p.min_tokens = s.min_tokens();
  p.max_tokens = s.max_tokens();
  p.stop_token_ids.assign(s.stop_token_ids().begin(), s.stop_token_ids().end());
  p.ignore_eos = s.ignore_eos();
  p.logprobs = s.logprobs();
  p.prompt_logprobs = s.prompt_logprobs();
  return r;
}

void to_wire(const TokenBatch& b, wire::TokenBatch* out) {
  out->set_id(b.id);
  out->set_generation(b.generation);
  out->set_first_index(b.first_index);
  out->mutable_tokens()->Assign(b.tokens.begin(), b.tokens.end());
  for (const PositionLogprobs& l : b.logprobs) to_wire(l, out->add_logprobs());
  for (const PositionLogprobs& l : b.prompt_logprobs) to_wire(l, out->add_prompt_logprobs());
  out->set_cached_tokens(b.cached_tokens);
  out->set_finish(static_cast<wire::TokenBatch::Finish>(b.finish));
  out->set_stop_token(b.stop_token);
  if (!b.error.ok()) {
    out->set_error(b.error.message());
    out->set_error_code(static_cast<uint32_t>(b.error.code()));
  }
}

TokenBatch from_wire(const wire::TokenBatch& from) {
  TokenBatch b;
  b.id = from.id();
  b.generation = from.generation();
  b.first_index = from.first_index();
  b.tokens.assign(from.tokens().begin(), from.tokens().end());
  for (const wire::TokenLogProbs& l : from.logprobs()) b.logprobs.push_back(from_wire(l));
  for (const wire::TokenLogProbs& l : from.prompt_logprobs())
    b.prompt_logprobs.push_back(from_wire(l));
  b.cached_tokens = from.cached_tokens();
  b.finish = wire::TokenBatch::Finish_IsValid(from.finish())
                 ? static_cast<FinishReason>(from.finish())
                 : FinishReason::kError;
  b.stop_token = from.stop_token();
  if (b.finish == FinishReason::kError || from.error_code() != 0) {
    const bool known =
        from.error_code() > 0 && from.error_code() <= static_cast<uint32_t>(StatusCode::kInternal);
    b.error = Status(known ? static_cast<StatusCode>(from.error_code()) : StatusCode::kInternal,
                     from.error());
  }
  return b;
}

void to_wire(const EngineLoad& load, wire::LoadReport* out) {
  out->set_running(load.running);
  out->set_waiting(load.waiting);
  out->set_blocks_used(load.blocks_used);
  out->set_blocks_total(load.blocks_total);
  out->set_tokens_to_prefill(load.tokens_to_prefill);
  out->set_draining(load.draining);
}

EngineLoad from_wire(const wire::LoadReport& r) {
  return {.running = r.running(),
          .waiting = r.waiting(),
          .blocks_used = r.blocks_used(),
          .blocks_total = r.blocks_total(),
          .tokens_to_prefill = r.tokens_to_prefill(),
          .draining = r.draining()};
}

}  // namespace flotilla
