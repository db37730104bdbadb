// START HERE. The engine of one rank: takes sequences, runs steps, gives tokens. What stands above
// it (HTTP, the queue port, the offline API) sees this header, request.h, text/ and
// dispatch/dispatcher.h, and nothing else of engine/.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/status.h"
#include "engine/request.h"

namespace flotilla {

// Takes what sequences produced. Called on the engine thread once per step with all batches of that
// sink, so it must not wait and must not call back into the engine.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void on_tokens(std::span<TokenBatch> batches) = 0;  // may move from the batches
};

// A measure of what the rank has to do, cheap to ask for.
struct EngineLoad {
  uint32_t running = 0;  // sequences in steps
  uint32_t waiting = 0;  // sequences not yet scheduled
  uint64_t blocks_used =
      0;  // KV blocks that hold live sequences (the prefix cache's evictable ones are free)
  uint64_t blocks_total = 0;
  uint64_t tokens_to_prefill = 0;
  bool draining = false;
};

enum class EngineState { kStarting, kServing, kPaused, kFailed };

struct EngineHealth {
  EngineState state = EngineState::kStarting;
  bool degraded = false;                  // serving with fewer ranks than the fleet has
  double seconds_without_progress = 0.0;  // while there is work; 0 when idle
  std::string detail;                     // "loading 37 %", "waiting for rank 3"
};

// What the front needs to know of the model to check requests.
struct EngineLimits {
  int64_t max_model_len = 0;  // prompt and produced tokens together
  int64_t vocab_size = 0;     // of the model: valid ids are 0 … vocab_size − 1
  int64_t max_prompt_tokens =
      0;  // what fits max_model_len and the KV pool with one token to produce
};

// Threads: every member may be called from any thread.
class Engine {
 public:
  virtual ~Engine() = default;

  // kResourceExhausted: the queue is full (retry later); kUnavailable: draining or failed;
  // kInvalidArgument: ids outside of the vocabulary or a prompt too long for the KV pool. `sink`
  // stays valid until the last batch of the request.
  virtual Status submit(GenerationRequest request, TokenSink* sink) = 0;
  // Frees the sequence within a step; its last batch says kCancelled. Unknown ids are ignored.
  // `sink` tells submitters apart.
  virtual void cancel(TokenSink* sink, uint64_t id) = 0;

  virtual EngineLoad load() const = 0;
  virtual EngineHealth health() const = 0;
  virtual EngineLimits limits() const = 0;

  // Refuses new requests from now on; running ones finish.
  virtual void begin_drain() = 0;
  // True once drained and no other rank needs this one's experts: the process may end.
  virtual bool drained() const = 0;
  // Waits for drained(), or until the deadline: then true is false.
  virtual bool wait_drained(std::chrono::steady_clock::time_point deadline) = 0;
  // Ends the engine thread; sequences still running end with kCancelled.
  virtual void stop() = 0;
};

}  // namespace flotilla
