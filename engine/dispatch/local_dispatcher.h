// Every request goes to this process's own engine (one rank per server, any balancer in front).
#pragma once

#include "engine/dispatch/dispatcher.h"

namespace flotilla {

class LocalDispatcher final : public Dispatcher {
 public:
  // `engine` is rank `rank` of `num_ranks` and outlives the dispatcher.
  LocalDispatcher(Engine& engine, Rank rank, int32_t num_ranks)
      : engine_(engine), rank_(rank), num_ranks_(num_ranks) {}

  StatusOr<Placement> submit(GenerationRequest request,
                             const DispatchOptions& options,
                             TokenSink* sink) override;
  void cancel(TokenSink* sink, uint64_t id) override { engine_.cancel(sink, id); }
  EngineLoad load() const override { return engine_.load(); }
  EngineHealth health() const override { return engine_.health(); }
  EngineLimits limits() const override { return engine_.limits(); }

 private:
  Engine& engine_;
  const Rank rank_;
  const int32_t num_ranks_;
};

}  // namespace flotilla
