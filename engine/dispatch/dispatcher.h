// Which rank serves a request. The front end submits here and gets tokens through its sink,
// wherever the rank is. Sampled tokens arrive a step after they were computed: nothing here may
// assume that a step is over when the next is planned.
#pragma once

#include <cstdint>
#include <optional>

#include "common/ids.h"
#include "common/status.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace flotilla {

// Prefill and decode rank are one and the same until they are placed apart; the lease names the
// hold on both.
struct Placement {
  Rank prefill;
  Rank decode;
  uint64_t lease = 0;
};

struct DispatchOptions {
  std::optional<Rank> rank;  // the caller named one (X-data-parallel-rank)
};

// Threads: every member may be called from any thread.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  // Errors as Engine::submit; kInvalidArgument also for a rank that does not exist, kUnavailable
  // for one that does not serve.
  virtual StatusOr<Placement> submit(GenerationRequest request,
                                     const DispatchOptions& options,
                                     TokenSink* sink) = 0;
  virtual void cancel(TokenSink* sink, uint64_t id) = 0;
  virtual EngineLoad load() const = 0;
  virtual EngineHealth health() const = 0;
  virtual EngineLimits limits() const = 0;
};

}  // namespace flotilla
