// How a running answer is written: chunks of a stream, or one JSON object at the end.
#include <algorithm>
#include <utility>

#include "api_server/generation/generation.h"
#include "engine/text/incremental_decoder.h"

namespace flotilla {

using openai::Dialect;

namespace {

// The engine gives as many as the greediest of several wishes.
void trim(std::vector<TokenLogprob>* top, int64_t wanted) {
  top->resize(std::min(top->size(), static_cast<size_t>(wanted)));
}

}  // namespace

void Generation::write_chunks(uint32_t index, std::string* out) {
  Sequence& sequence = sequences_[index];
  if (sequence.closed) return;
  if (!sequence.opened) open(index, out);
  SequenceOutput& output = sequence.output;
  const bool last = output.finished();
  const uint64_t new_tokens = output.num_tokens() - sequence.tokens_written;
  if (!last && (!output.has_output() || new_tokens < plan_.tokens_per_chunk)) return;

  const SequenceOutput::Fresh fresh = output.take();
  sequence.tokens_written = output.num_tokens();
  sequence.closed = last;
  openai::Usage so_far;
  openai::Delta delta{.index = index,
                      .text = fresh.text,
                      .reasoning = fresh.reasoning,
                      .logprobs = fresh.logprobs,
                      .token_ids = fresh.token_ids,
                      .show_token_ids = plan_.show_token_ids};
  if (plan_.continuous_usage) {
    so_far = usage();
    delta.usage = &so_far;
  }
  if (last) {
    delta.finish = output.finish_reason();
    delta.stop_reason = &output.stop_reason();
  }
  chunks_.append_delta(out, delta);
}

// A chat choice begins with its role, a completion with what is echoed of its prompt.
void Generation::open(uint32_t index, std::string* out) {
  Sequence& sequence = sequences_[index];
  sequence.opened = true;
  const PlannedPrompt& prompt = plan_.prompts[sequence.prompt];
  const std::vector<TokenId>* ids = plan_.show_token_ids ? &prompt.ids : nullptr;
  openai::Usage so_far;
  if (plan_.continuous_usage) so_far = usage();
  const openai::Usage* shown_usage = plan_.continuous_usage ? &so_far : nullptr;
  if (plan_.head.dialect == Dialect::kChat) {
    chunks_.append_opening(out, index, ids, shown_usage);
    return;
  }
  if (!prompt.echo && ids == nullptr) return;
  const std::vector<openai::LogprobEntry> logprobs = echo_logprobs(sequence);
  chunks_.append_delta(out,
                       {.index = index,
                        .text = prompt.echo ? std::string_view(*prompt.echo) : std::string_view(),
                        .logprobs = logprobs,
                        .show_token_ids = plan_.show_token_ids,
                        .prompt_token_ids = ids,
                        .usage = shown_usage});
}

std::string Generation::whole_answer() {
  std::vector<openai::Choice> choices;
  choices.reserve(sequences_.size());
  for (uint32_t i = 0; i < sequences_.size(); ++i) choices.push_back(whole_choice(i));
  return openai::whole_answer(plan_.head, choices, usage());
}

openai::Choice Generation::whole_choice(uint32_t index) {
  Sequence& sequence = sequences_[index];
  const PlannedPrompt& prompt = plan_.prompts[sequence.prompt];
  SequenceOutput& output = sequence.output;
  SequenceOutput::Fresh all = output.take();
  openai::Choice choice;
  choice.index = index;
  choice.text = prompt.echo.value_or("") + all.text;
  if (output.has_reasoning_parser()) {
    choice.has_text = output.answer_begun() || all.reasoning.empty();
    choice.reasoning = std::move(all.reasoning);
  }
  if (plan_.num_logprobs >= 0) {
    choice.logprobs = echo_logprobs(sequence);
    std::move(all.logprobs.begin(), all.logprobs.end(), std::back_inserter(*choice.logprobs));
  }
  if (plan_.num_prompt_logprobs >= 0) choice.prompt_logprobs = prompt_logprobs(sequence);
  if (plan_.show_token_ids) {
    choice.show_token_ids = true;
    choice.prompt_token_ids = prompt.ids;
    choice.token_ids = std::move(all.token_ids);
  }
  choice.finish = output.finish_reason();
  choice.stop_reason = output.stop_reason();
  return choice;
}

// Of an echoed prompt's tokens: the first has none.
std::vector<openai::LogprobEntry> Generation::echo_logprobs(const Sequence& sequence) const {
  const PlannedPrompt& prompt = plan_.prompts[sequence.prompt];
  std::vector<openai::LogprobEntry> entries;
  if (!prompt.echo || plan_.num_logprobs < 0) return entries;
  IncrementalDecoder decoder(*serving_.tokenizer, plan_.skip_special_tokens);
  uint64_t offset = 0;
  std::string text;
  const size_t count = std::min(prompt.ids.size(), sequence.prompt_logprobs.size());
  entries.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    PositionLogprobs position = sequence.prompt_logprobs[i];
    const bool has_logprob = position.chosen.token >= 0;
    position.chosen.token = prompt.ids[i];
    trim(&position.top, plan_.num_logprobs);
    openai::LogprobEntry entry = name_logprobs(*serving_.tokenizer, position, plan_.tokens_as_ids);
    entry.has_logprob = has_logprob;
    entry.text_offset = offset;
    entries.push_back(std::move(entry));
    text.clear();
    decoder.append(prompt.ids[i], &text);
    offset += count_characters(text);
  }
  return entries;
}

openai::PromptLogprobs Generation::prompt_logprobs(const Sequence& sequence) const {
  openai::PromptLogprobs out;
  for (const PositionLogprobs& position : sequence.prompt_logprobs) {
    std::vector<openai::PromptLogprob>& shown = out.emplace_back();
    if (position.chosen.token < 0) continue;
    const auto show = [&](const TokenLogprob& p) {
      shown.push_back({p.token, p.logprob, p.rank, serving_.tokenizer->token_text(p.token)});
    };
    show(position.chosen);
    std::vector<TokenLogprob> top = position.top;
    trim(&top, plan_.num_prompt_logprobs);
    for (const TokenLogprob& p : top) {
      if (p.token != position.chosen.token) show(p);
    }
  }
  return out;
}

openai::Usage Generation::usage() const {
  openai::Usage usage;
  size_t counted_prompts = 0;
  for (const Sequence& sequence : sequences_) {
    usage.completion_tokens += sequence.output.num_tokens();
    if (sequence.output.has_reasoning_parser()) {
      usage.reasoning_tokens =
          usage.reasoning_tokens.value_or(0) + sequence.output.num_reasoning_tokens();
    }
    if (sequence.prompt < counted_prompts) continue;
    // A prompt counts once, whatever n is: its first choice says how much of it was in the cache.
    ++counted_prompts;
    usage.prompt_tokens += plan_.prompts[sequence.prompt].ids.size() + plan_.resumed_tokens;
    usage.cached_tokens += sequence.cached_tokens;
  }
  return usage;
}

}  // namespace flotilla
