// Where the tokens of all running answers arrive: the one TokenSink of this process. It runs on the
// engine thread, so it only puts each batch into its answer's inbox and wakes, once per step, the
// I/O threads that will write them out.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "api_server/http/response_stream.h"
#include "common/mutex.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace flotilla {

// What came for one sequence since somebody last looked: its batches, joined.
struct PendingTokens {
  uint32_t sequence = 0;  // index within the answer
  TokenBatch batch;
  // The first of these tokens: when the engine says that it was produced, and when it arrived here.
  std::chrono::steady_clock::time_point first_produced_at{};
  std::chrono::steady_clock::time_point first_at{};
  std::chrono::steady_clock::time_point last_at{};  // when the newest batch arrived here
};

// The tokens of one answer on their way from the engine thread to the thread that writes it. A slow
// reader costs a few bytes a token here, never a queue entry each.
class TokenInbox {
 public:
  // `wake_on_tokens`: false if nobody needs to look before a sequence ends.
  TokenInbox(ResponseStreamHandle stream, uint32_t num_sequences, bool wake_on_tokens);

  // Everything new, in the order in which sequences got something first. Any thread.
  std::vector<PendingTokens> take();

 private:
  friend class TokenHub;
  // True if the stream must be woken.
  bool put(uint32_t sequence, TokenBatch&& batch, std::chrono::steady_clock::time_point now);

  const ResponseStreamHandle stream_;
  const bool wake_on_tokens_;
  Mutex mutex_;
  std::vector<PendingTokens> pending_ GUARDED_BY(mutex_);
  std::vector<int32_t> slot_of_ GUARDED_BY(mutex_);  // by sequence: its place in pending_, or −1
};

// Threads: on_tokens on the engine thread (or on the threads of several engines' connections), the
// rest on any.
class TokenHub final : public TokenSink {
 public:
  // Tokens of the returned request id go to `inbox` until the batch that ends it, or forget().
  uint64_t expect(std::shared_ptr<TokenInbox> inbox, uint32_t sequence);
  void forget(uint64_t id);

  void on_tokens(std::span<TokenBatch> batches) override;

  size_t num_expected() const;

 private:
  struct Target {
    std::shared_ptr<TokenInbox> inbox;
    uint32_t sequence;
  };
  std::atomic<uint64_t> next_id_{1};
  mutable Mutex mutex_;
  std::unordered_map<uint64_t, Target> targets_ GUARDED_BY(mutex_);
};

}  // namespace flotilla
