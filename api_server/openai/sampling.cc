#include "api_server/openai/sampling.h"

#include <algorithm>

namespace flotilla::openai {
namespace {

// Below this a temperature is greedy in all but name, and 1/t would overflow (FastDeploy clips at
// the same value).
constexpr double kGreedyBelow = 1e-6;

float choose(const std::optional<double>& asked, const std::optional<double>& model, float engine) {
  return asked ? static_cast<float>(*asked) : model ? static_cast<float>(*model) : engine;
}

std::string tokens(int64_t n) { return std::to_string(n) + (n == 1 ? " token" : " tokens"); }

}  // namespace

ApiResult<SamplingParams> resolve_sampling(const SamplingFields& fields,
                                           const GenerationDefaults& defaults,
                                           const EngineLimits& limits,
                                           int64_t prompt_tokens) {
  if (prompt_tokens > limits.max_prompt_tokens) {
    return ApiError::bad_value("",
                               "the prompt has " + tokens(prompt_tokens) + ", but at most " +
                                   tokens(limits.max_prompt_tokens) + " fit (context length " +
                                   std::to_string(limits.max_model_len) + ")",
                               "context_length_exceeded");
  }
  const int64_t room = limits.max_model_len - prompt_tokens;
  if (room < 1) {
    return ApiError::bad_value("",
                               "the prompt has " + tokens(prompt_tokens) +
                                   " and leaves no room in a context of " +
                                   tokens(limits.max_model_len),
                               "context_length_exceeded");
  }

  const SamplingParams engine;
  SamplingParams out;
  out.temperature = choose(fields.temperature, defaults.temperature, engine.temperature);
  if (out.temperature < kGreedyBelow) out.temperature = 0;
  out.top_p = choose(fields.top_p, defaults.top_p, engine.top_p);
  out.min_p = choose(fields.min_p, defaults.min_p, engine.min_p);
  out.repetition_penalty =
      choose(fields.repetition_penalty, defaults.repetition_penalty, engine.repetition_penalty);
  out.presence_penalty = choose(fields.presence_penalty, {}, engine.presence_penalty);
  out.frequency_penalty = choose(fields.frequency_penalty, {}, engine.frequency_penalty);
  out.top_k = static_cast<int32_t>(
      std::max<int64_t>(0, fields.top_k ? *fields.top_k : defaults.top_k.value_or(engine.top_k)));

  out.logit_bias = fields.logit_bias;
  out.stop_token_ids = fields.stop_token_ids;
  out.ignore_eos = fields.ignore_eos;
  for (const TokenId id : fields.bad_words_token_ids) out.bad_words.push_back({id});

  // max_tokens 0 (a completion that is only echoed) still costs the engine one token, which is
  // thrown away.
  const int64_t asked = fields.max_tokens.value_or(defaults.max_new_tokens.value_or(room));
  const int64_t max_tokens = std::clamp<int64_t>(asked, 1, room);
  const int64_t min_tokens = fields.min_tokens.value_or(0);
  if (min_tokens > max_tokens) {
    return ApiError::bad_value("min_tokens",
                               "min_tokens: got " + std::to_string(min_tokens) +
                                   ", expected at most " + std::to_string(max_tokens) +
                                   " (max_tokens, and what fits behind a prompt of " +
                                   tokens(prompt_tokens) + ")");
  }
  out.max_tokens = static_cast<uint32_t>(max_tokens);
  out.min_tokens = static_cast<uint32_t>(min_tokens);
  return out;
}

}  // namespace flotilla::openai
