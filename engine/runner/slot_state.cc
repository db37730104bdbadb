#include "engine/runner/slot_state.h"

#include <algorithm>

namespace flotilla {

void SamplerBatch::clear() {
  rows.clear();
  seen.clear();
  bias.clear();
  banned.clear();
}

bool SlotState::needs_counts() const {
  const SamplingParams& p = sampling_->params;
  return p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f || p.repetition_penalty != 1.0f;
}

void SlotState::reset(const SlotReset& reset) {
  sampling_ = reset.sampling;
  table_ = reset.blocks;
  last_token_ = -1;
  num_produced_ = 0;
  produced_.clear();
  seen_.clear();
  seen_index_.clear();
  if (needs_counts()) {
    for (const TokenId token : reset.prompt) {
      if (seen_index_.emplace(token, seen_.size()).second) seen_.push_back({token, 0});
    }
  }
  for (const TokenId token : reset.produced) append(token);
  num_produced_ = reset.num_produced;
}

void SlotState::append(TokenId token) {
  last_token_ = token;
  ++num_produced_;
  if (!sampling_->params.bad_words.empty()) produced_.push_back(token);
  if (!needs_counts()) return;
  const auto [it, added] = seen_index_.emplace(token, seen_.size());
  if (added) seen_.push_back({token, 0});
  ++seen_[it->second].produced;
}

void SlotState::add_sampler_row(int64_t position, SamplerBatch* batch) const {
  const SamplingParams& p = sampling_->params;
  SamplerRow row;
  row.temperature = p.temperature;
  row.top_p = p.top_p;
  row.min_p = p.min_p;
  row.top_k = p.top_k;
  row.presence_penalty = p.presence_penalty;
  row.frequency_penalty = p.frequency_penalty;
  row.repetition_penalty = p.repetition_penalty;
  row.choice = static_cast<int32_t>(sampling_->choice);
  row.seed = sampling_->seed;
  row.position = position;
  row.num_logprobs = p.logprobs;

  row.seen_begin = static_cast<int32_t>(batch->seen.size());
  batch->seen.insert(batch->seen.end(), seen_.begin(), seen_.end());
  row.seen_end = static_cast<int32_t>(batch->seen.size());

  row.bias_begin = static_cast<int32_t>(batch->bias.size());
  for (const TokenBias& b : p.logit_bias) batch->bias.push_back({b.token, b.bias});
  row.bias_end = static_cast<int32_t>(batch->bias.size());

  row.banned_begin = static_cast<int32_t>(batch->banned.size());
  if (num_produced_ < p.min_tokens) {
    batch->banned.insert(
        batch->banned.end(), sampling_->stop_ids.begin(), sampling_->stop_ids.end());
  }
  for (const std::vector<TokenId>& word : p.bad_words) {
    const size_t before = word.size() - 1;
    if (before <= produced_.size() &&
        std::equal(
            word.begin(), word.end() - 1, produced_.end() - static_cast<ptrdiff_t>(before))) {
      batch->banned.push_back(word.back());
    }
  }
  row.banned_end = static_cast<int32_t>(batch->banned.size());
  batch->rows.push_back(row);
}

}  // namespace flotilla
