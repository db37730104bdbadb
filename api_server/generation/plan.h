// What a checked request becomes before any engine sees it: prompts as token ids, and per choice
// what to ask of the engine and how to read its tokens. Everything that can be wrong with a request
// is found here, while its HTTP status is still free. Threads: HTTP handler threads; templates and
// tokenizers are immutable.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api_server/generation/sequence_output.h"
#include "api_server/generation/serving.h"
#include "api_server/openai/error.h"
#include "api_server/openai/format.h"
#include "api_server/openai/schema.h"
#include "common/ids.h"
#include "engine/request.h"

namespace flotilla {

struct PlannedPrompt {
  std::vector<TokenId> ids;
  std::optional<std::string> echo;  // its text, if the answer begins with it
};

struct PlannedSequence {
  size_t prompt = 0;          // index in prompts
  GenerationRequest request;  // id and deadline are set when it is submitted
  OutputOptions output;
};

struct GenerationPlan {
  openai::AnswerHead head;
  std::string request_id;
  bool stream = false;
  bool watch_tokens = false;  // somebody has to look at the tokens before a sequence ends: a
                              // stream, or stop strings
  bool include_usage = false;
  bool continuous_usage = false;
  uint64_t tokens_per_chunk = 1;
  bool show_token_ids = false;
  int64_t num_logprobs =
      -1;  // best tokens shown per produced (and echoed) token; −1: none are asked for
  int64_t num_prompt_logprobs = -1;  // likewise of vLLM's prompt_logprobs
  bool tokens_as_ids = false;
  bool skip_special_tokens = true;
  uint64_t resumed_tokens = 0;  // produced by an earlier request; counted with the prompt
  std::optional<Rank> rank;     // the caller named one
  std::vector<PlannedPrompt> prompts;
  std::vector<PlannedSequence> sequences;  // n per prompt, in the order of the answer's choices
};

// `request_id`: of a request whose body names none.
openai::ApiResult<GenerationPlan> plan_chat(Serving& serving,
                                            openai::ChatRequest request,
                                            const std::string& request_id);
openai::ApiResult<GenerationPlan> plan_completion(Serving& serving,
                                                  openai::CompletionRequest request,
                                                  const std::string& request_id);

// A conversation as the model's template writes it.
openai::ApiResult<std::string> render_chat(const Serving& serving,
                                           const std::vector<openai::ChatMessage>& messages,
                                           const openai::TemplateKwargs& kwargs,
                                           bool add_generation_prompt);

}  // namespace flotilla
