// From what a request says to what the engine is asked for: request > generation_config.json >
// engine.
#pragma once

#include <cstdint>

#include "api_server/openai/schema.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/text/generation_config.h"

namespace flotilla::openai {

// Merges the values that do not need a tokenizer; bad_words stays empty but for
// bad_words_token_ids. `prompt_tokens` counts what the model has to read: prompt and resumed
// tokens. max_tokens is clipped to the room that is left; absent, it is that room (or the model's
// max_new_tokens). A prompt without room for one token, or for min_tokens, is the caller's mistake.
ApiResult<SamplingParams> resolve_sampling(const SamplingFields& fields,
                                           const GenerationDefaults& defaults,
                                           const EngineLimits& limits,
                                           int64_t prompt_tokens);

}  // namespace flotilla::openai
