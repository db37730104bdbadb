// What a model's folder says about generating: generation_config.json's defaults, and which tokens
// end a sequence.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "engine/request.h"

namespace flotilla {

// Defaults between a request's own values and the engine's (SamplingParams). An absent field says
// nothing.
struct GenerationDefaults {
  std::optional<double>
      temperature;  // 0 if the file says "do_sample": false, as transformers then decodes greedily
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> max_new_tokens;
};

// Of `model_dir`/generation_config.json. No such file: no defaults. kInvalidArgument names the file
// and the field if one is of the wrong type or out of range.
StatusOr<GenerationDefaults> read_generation_defaults(const std::string& model_dir);

// The union of the ids that config.json, generation_config.json (eos_token_id: a number or a list)
// and tokenizer_config.json (eos_token: a text, or an object with "content") name; sorted, without
// repeats. `id_of` finds a token's id by its text. A file that is not there, or names none, adds
// none. kInvalidArgument for a value of the wrong type or an eos_token without an id.
StatusOr<std::vector<TokenId>> read_eos_token_ids(
    const std::string& model_dir,
    const std::function<std::optional<TokenId>(std::string_view)>& id_of);

}  // namespace flotilla
