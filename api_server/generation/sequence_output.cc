#include "api_server/generation/sequence_output.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"

namespace flotilla {
namespace {

constexpr uint64_t kUnsettled = std::numeric_limits<uint64_t>::max();

openai::NamedLogprob name_one(const Tokenizer& tokenizer, const TokenLogprob& logprob, bool as_id) {
  openai::NamedLogprob named;
  named.token =
      as_id ? "token_id:" + std::to_string(logprob.token) : tokenizer.token_text(logprob.token);
  if (std::string bytes = tokenizer.token_bytes(logprob.token); !bytes.empty()) {
    named.bytes = std::move(bytes);
  }
  named.logprob = logprob.logprob;
  return named;
}

// Of the tags that ReasoningParser looks for, those that a tokenizer may drop as special tokens.
std::vector<TokenId> special_tags(const Tokenizer& tokenizer) {
  std::vector<TokenId> tags;
  for (const char* tag : {"<think>", "</think>", "<response>", "</response>"}) {
    const std::optional<TokenId> id = tokenizer.token_id(tag);
    if (id && tokenizer.is_special(*id)) tags.push_back(*id);
  }
  return tags;
}

}  // namespace

openai::LogprobEntry name_logprobs(const Tokenizer& tokenizer,
                                   const PositionLogprobs& position,
                                   bool tokens_as_ids) {
  openai::LogprobEntry entry;
  entry.chosen = name_one(tokenizer, position.chosen, tokens_as_ids);
  entry.top.reserve(position.top.size());
  for (const TokenLogprob& top : position.top) {
    entry.top.push_back(name_one(tokenizer, top, tokens_as_ids));
  }
  return entry;
}

uint64_t count_characters(std::string_view text) {
  return static_cast<uint64_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

SequenceOutput::SequenceOutput(const Tokenizer& tokenizer,
                               OutputOptions options,
                               std::span<const TokenId> resumed)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      decoder_(tokenizer, options_.skip_special_tokens),
      reasoning_(options_.reasoning),
      text_offset_(options_.text_offset) {
  if (!options_.stop.empty()) matcher_.emplace(options_.stop, options_.include_stop);
  if (reasoning_ && options_.skip_special_tokens) tags_ = special_tags(tokenizer);
  for (const TokenId id : resumed) {
    scratch_.clear();
    decode(id);
    show(scratch_);
  }
  fresh_ = {};
}

void SequenceOutput::decode(TokenId id) {
  if (std::find(tags_.begin(), tags_.end(), id) != tags_.end()) {
    scratch_ += tokenizer_.token_bytes(id);
  } else {
    decoder_.append(id, &scratch_);
  }
}

void SequenceOutput::add(const TokenBatch& batch) {
  check(!finished(), "a finished sequence gets no more tokens");
  const bool engine_goes_on = batch.finish == FinishReason::kRunning;
  if (options_.discard && batch.finish != FinishReason::kError &&
      batch.finish != FinishReason::kCancelled) {
    ended_before_engine_ = engine_goes_on;
    end(FinishReason::kLength);
    return;
  }
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    const PositionLogprobs* logprobs = i < batch.logprobs.size() ? &batch.logprobs[i] : nullptr;
    if (add_token(batch.tokens[i], logprobs)) {
      ended_before_engine_ = engine_goes_on;
      return;
    }
  }
  if (engine_goes_on) return;

  if (batch.finish == FinishReason::kStop && batch.stop_token >= 0) {
    const std::vector<TokenId>& own = options_.stop_token_ids;
    if (std::find(own.begin(), own.end(), batch.stop_token) != own.end()) {
      stop_reason_ = batch.stop_token;
    }
    ++num_tokens_;
    fresh_.token_ids.push_back(batch.stop_token);
    if (options_.include_stop) {
      scratch_.clear();
      decode(batch.stop_token);
      if (give_out(scratch_)) return;
    }
  }
  if (batch.finish == FinishReason::kError) {
    error_ = batch.error.ok() ? internal_error("the engine gave no reason") : batch.error;
  } else if (batch.finish == FinishReason::kCancelled) {
    error_ = unavailable("the engine stopped before the answer was complete");
  }
  finish_text();
  if (!finished()) end(error_.ok() ? batch.finish : FinishReason::kError);
}

// True if the sequence ended by it.
bool SequenceOutput::add_token(TokenId id, const PositionLogprobs* logprobs) {
  scratch_.clear();
  decode(id);
  ++num_tokens_;
  fresh_.token_ids.push_back(id);
  if (options_.logprobs && logprobs != nullptr) {
    PendingLogprob pending{
        name_logprobs(tokenizer_, *logprobs, options_.tokens_as_ids), decoded_bytes_, kUnsettled};
    pending.entry.text_offset = text_offset_;
    pending_logprobs_.push_back(std::move(pending));
  }
  const bool stopped = give_out(scratch_);
  if (reasoning_ && reasoning_->in_reasoning()) ++num_reasoning_tokens_;
  return stopped;
}

// Passes decoded text on; true if a stop string ended the sequence.
bool SequenceOutput::give_out(std::string_view decoded) {
  if (decoded.empty()) return false;
  decoded_bytes_ += decoded.size();
  if (options_.logprobs) {
    text_offset_ += count_characters(decoded);
    // Tokens that only together make a character settle together.
    for (auto it = pending_logprobs_.rbegin();
         it != pending_logprobs_.rend() && it->end == kUnsettled;
         ++it) {
      it->end = decoded_bytes_;
    }
  }
  if (!matcher_ || num_tokens_ <= options_.min_tokens) {
    unmatched_bytes_ += decoded.size();
    show(decoded);
    release_logprobs();
    return false;
  }
  released_.clear();
  const bool stopped = matcher_->append(decoded, &released_);
  show(released_);
  release_logprobs();
  if (!stopped) return false;

  for (PendingLogprob& pending : pending_logprobs_) {
    if (pending.begin < emitted_bytes()) {
      fresh_.logprobs.push_back(std::move(pending.entry));
    }
  }
  pending_logprobs_.clear();
  stop_reason_ = matcher_->matched_string();
  end(FinishReason::kStop);
  return true;
}

void SequenceOutput::show(std::string_view text) {
  if (text.empty()) return;
  if (!reasoning_) {
    fresh_.text += text;
    answer_begun_ = true;
    return;
  }
  ReasoningParser::Delta delta;
  reasoning_->append(text, &delta);
  fresh_.text += delta.content;
  fresh_.reasoning += delta.reasoning;
  answer_begun_ |= !delta.content.empty();
}

// The tokens are over: what was held back is text after all.
void SequenceOutput::finish_text() {
  scratch_.clear();
  decoder_.finish(&scratch_);
  if (give_out(scratch_)) return;
  if (matcher_) {
    released_.clear();
    matcher_->finish(&released_);
    show(released_);
  }
  for (PendingLogprob& pending : pending_logprobs_) {
    fresh_.logprobs.push_back(std::move(pending.entry));
  }
  pending_logprobs_.clear();
}

void SequenceOutput::release_logprobs() {
  while (!pending_logprobs_.empty() && pending_logprobs_.front().end <= emitted_bytes()) {
    fresh_.logprobs.push_back(std::move(pending_logprobs_.front().entry));
    pending_logprobs_.pop_front();
  }
}

void SequenceOutput::end(FinishReason reason) {
  finish_ = reason;
  if (!reasoning_) return;
  ReasoningParser::Delta delta;
  reasoning_->finish(&delta);
  fresh_.text += delta.content;
  fresh_.reasoning += delta.reasoning;
  answer_begun_ |= !delta.content.empty();
}

SequenceOutput::Fresh SequenceOutput::take() { return std::exchange(fresh_, {}); }

}  // namespace flotilla
