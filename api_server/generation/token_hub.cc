#include "api_server/generation/token_hub.h"

#include <iterator>
#include <utility>

namespace flotilla {
namespace {

template <typename T>
void append_moved(std::vector<T>* to, std::vector<T>* from) {
  to->insert(
      to->end(), std::make_move_iterator(from->begin()), std::make_move_iterator(from->end()));
}

// `next` follows `batch` in the same sequence.
void join(TokenBatch* batch, TokenBatch&& next) {
  append_moved(&batch->tokens, &next.tokens);
  append_moved(&batch->logprobs, &next.logprobs);
  if (!next.prompt_logprobs.empty()) batch->prompt_logprobs = std::move(next.prompt_logprobs);
  if (next.cached_tokens > 0) batch->cached_tokens = next.cached_tokens;
  batch->generation = next.generation;
  batch->finish = next.finish;
  batch->stop_token = next.stop_token;
  batch->error = std::move(next.error);
  if (next.scheduled_at.time_since_epoch().count() != 0) batch->scheduled_at = next.scheduled_at;
  if (next.produced_at.time_since_epoch().count() != 0) batch->produced_at = next.produced_at;
}

}  // namespace

TokenInbox::TokenInbox(ResponseStreamHandle stream, uint32_t num_sequences, bool wake_on_tokens)
    : stream_(std::move(stream)), wake_on_tokens_(wake_on_tokens), slot_of_(num_sequences, -1) {}

std::vector<PendingTokens> TokenInbox::take() {
  MutexLock lock(mutex_);
  for (const PendingTokens& pending : pending_) slot_of_[pending.sequence] = -1;
  return std::exchange(pending_, {});
}

bool TokenInbox::put(uint32_t sequence,
                     TokenBatch&& batch,
                     std::chrono::steady_clock::time_point now) {
  const bool ends = batch.finish != FinishReason::kRunning;
  MutexLock lock(mutex_);
  if (const int32_t slot = slot_of_[sequence]; slot >= 0) {
    PendingTokens& pending = pending_[static_cast<size_t>(slot)];
    if (pending.batch.tokens.empty()) {
      pending.first_produced_at = batch.produced_at;
      pending.first_at = now;
    }
    join(&pending.batch, std::move(batch));
    pending.last_at = now;
  } else {
    slot_of_[sequence] = static_cast<int32_t>(pending_.size());
    const auto produced_at = batch.produced_at;
    pending_.push_back({sequence, std::move(batch), produced_at, now, now});
  }
  return ends || wake_on_tokens_;
}

uint64_t TokenHub::expect(std::shared_ptr<TokenInbox> inbox, uint32_t sequence) {
  const uint64_t id = next_id_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  targets_.emplace(id, Target{std::move(inbox), sequence});
  return id;
}

void TokenHub::forget(uint64_t id) {
  MutexLock lock(mutex_);
  targets_.erase(id);
}

size_t TokenHub::num_expected() const {
  MutexLock lock(mutex_);
  return targets_.size();
}

void TokenHub::on_tokens(std::span<TokenBatch> batches) {
  const auto now = std::chrono::steady_clock::now();
  std::vector<ResponseStreamHandle> to_wake;
  to_wake.reserve(batches.size());
  {
    MutexLock lock(mutex_);
    for (TokenBatch& batch : batches) {
      const auto it = targets_.find(batch.id);
      if (it == targets_.end()) continue;  // cancelled: nobody waits for these tokens
      const bool ends = batch.finish != FinishReason::kRunning;
      TokenInbox& inbox = *it->second.inbox;
      if (inbox.put(it->second.sequence, std::move(batch), now)) to_wake.push_back(inbox.stream_);
      if (ends) targets_.erase(it);
    }
  }
  wake_many(to_wake);
}

}  // namespace flotilla
