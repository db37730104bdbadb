// An engine without a model: every sequence yields the tokens of one fixed text, over and over, at
// a fixed rate. For load tests of all that lies above an engine. Idle, it sleeps.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"

namespace flotilla {

struct NullEngineOptions {
  std::vector<TokenId> text;        // at least one token
  double tokens_per_second = 20.0;  // of one sequence
  uint32_t max_waiting = 1u << 20;  // sequences at once
  EngineLimits limits;
};

std::unique_ptr<Engine> make_null_engine(NullEngineOptions options);

}  // namespace flotilla
