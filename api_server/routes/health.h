// How the engine's state becomes an answer to probes.
//   alive: the process should be left running. A busy, paused or draining engine is alive; one that
//   has work and does not
//          move, one that failed, and one that has not loaded its model yet is not.
//   ready: new requests should come here.
#pragma once

#include <string>

#include "api_server/generation/serving.h"
#include "api_server/http/http_message.h"
#include "engine/engine.h"

namespace flotilla {

struct Vitality {
  bool alive = false;
  bool ready = false;
  std::string status;  // "ok", "loading", "paused", "draining", "stalled", "failed"
  bool degraded = false;
  std::string detail;
};

Vitality vitality_of(const EngineHealth& health, bool draining, double stall_limit_seconds);
Vitality vitality_of(const Serving& serving);
// 200 or 503 with {"status","degraded","detail"}.
HttpResponse vitality_answer(const Vitality& vitality, bool good);

}  // namespace flotilla
