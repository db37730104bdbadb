// The queue port's messages as the engine's values, and back.
#pragma once

#include "common/status.h"
#include "common/wire/queue.pb.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace flotilla {

inline constexpr uint32_t kQueueProtocol = 1;

void to_wire(const GenerationRequest& request,
             std::chrono::steady_clock::time_point now,
             wire::Submit* out);
// Deadlines count from `now`. Values are checked by the engine, not here.
GenerationRequest from_wire(const wire::Submit& submit, std::chrono::steady_clock::time_point now);

void to_wire(const TokenBatch& batch, wire::TokenBatch* out);
TokenBatch from_wire(const wire::TokenBatch& batch);

void to_wire(const EngineLoad& load, wire::LoadReport* out);
EngineLoad from_wire(const wire::LoadReport& report);

}  // namespace flotilla
