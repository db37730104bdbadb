#include "api_server/generation/plan.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "api_server/openai/sampling.h"

namespace flotilla {
namespace {

using openai::ApiError;
using openai::ApiResult;
using openai::Dialect;
using openai::GenerationFields;

// Reasoning parsers look at how the prompt ends; so much of it is enough.
constexpr size_t kPromptTailTokens = 16;

GenerationPlan make_plan(const Serving& serving,
                         Dialect dialect,
                         const GenerationFields& fields,
                         const std::string& request_id) {
  GenerationPlan plan;
  plan.request_id = fields.request_id.empty() ? request_id : fields.request_id;
  plan.head = {.dialect = dialect,
               .id = (dialect == Dialect::kChat ? "chatcmpl-" : "cmpl-") + plan.request_id,
               .created = std::time(nullptr),
               .model = serving.shown_model(fields.model)};
  plan.stream = fields.stream;
  plan.watch_tokens =
      fields.stream || !fields.sampling.stop.empty() || fields.sampling.max_tokens == 0;
  plan.include_usage = fields.include_usage;
  plan.continuous_usage = fields.continuous_usage_stats;
  plan.tokens_per_chunk = static_cast<uint64_t>(fields.tokens_per_chunk);
  plan.show_token_ids = fields.return_token_ids;
  plan.num_logprobs = fields.logprobs.value_or(-1);
  plan.tokens_as_ids = fields.tokens_as_ids;
  plan.skip_special_tokens = fields.sampling.skip_special_tokens;
  plan.resumed_tokens = fields.completion_token_ids.size();
  return plan;
}

ApiResult<std::vector<TokenId>> encode(const Serving& serving,
                                       const std::string& param,
                                       std::string_view text,
                                       bool add_special_tokens) {
  StatusOr<std::vector<TokenId>> ids =
      serving.tokenizer->encode(text, {.add_special_tokens = add_special_tokens});
  if (!ids.ok()) return ApiError{ids.status(), param};
  return std::move(*ids);
}

// As vLLM does: each word as it stands and, where that is as long and begins differently, behind a
// space.
std::optional<ApiError> append_bad_words(const Serving& serving,
                                         const std::vector<std::string>& words,
                                         std::vector<std::vector<TokenId>>* out) {
  for (const std::string& word : words) {
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    auto plain = encode(serving, "bad_words", bare, false);
    if (!plain.ok()) return plain.error();
    if (plain.value().empty()) continue;
    auto spaced = encode(serving, "bad_words", " " + bare, false);
    if (!spaced.ok()) return spaced.error();
    const bool both = spaced.value().size() == plain.value().size() &&
                      spaced.value().front() != plain.value().front();
    out->push_back(plain.value());
    if (both) out->push_back(spaced.value());
  }
  return std::nullopt;
}

// Adds the n choices of one prompt.
std::optional<ApiError> add_sequences(Serving& serving,
                                      const GenerationFields& fields,
                                      const std::vector<std::vector<TokenId>>& bad_words,
                                      const std::optional<ReasoningParser>& reasoning,
                                      uint64_t seed,
                                      int32_t prompt_logprobs,
                                      PlannedPrompt prompt,
                                      GenerationPlan* plan) {
  if (prompt.ids.empty()) {
    return ApiError::bad_value("prompt", "the prompt has no tokens, expected at least one");
  }
  const auto& resumed = fields.completion_token_ids;
  const auto read_tokens = static_cast<int64_t>(prompt.ids.size() + resumed.size());
  ApiResult<SamplingParams> sampling = openai::resolve_sampling(
      fields.sampling, serving.defaults, serving.dispatcher.limits(), read_tokens);
  if (!sampling.ok()) return sampling.error();
  SamplingParams params = std::move(sampling).value();

  OutputOptions output;
  output.stop = fields.sampling.stop;
  output.stop_token_ids = fields.sampling.stop_token_ids;
  output.min_tokens = params.min_tokens;
  output.include_stop = fields.sampling.include_stop_str_in_output;
  output.skip_special_tokens = fields.sampling.skip_special_tokens;
  output.logprobs = fields.logprobs.has_value();
  output.tokens_as_ids = fields.tokens_as_ids;
  output.discard = fields.sampling.max_tokens == 0;
  output.reasoning = reasoning;
  output.text_offset = prompt.echo ? count_characters(*prompt.echo) : 0;

  params.bad_words.insert(params.bad_words.end(), bad_words.begin(), bad_words.end());
  params.logprobs = static_cast<int32_t>(fields.logprobs.value_or(-1));
  params.prompt_logprobs = prompt_logprobs;
  // The engine counts resumed tokens among the produced ones.
  params.max_tokens += static_cast<uint32_t>(resumed.size());
  if (params.min_tokens > 0) params.min_tokens += static_cast<uint32_t>(resumed.size());

  const size_t prompt_index = plan->prompts.size();
  for (int64_t choice = 0; choice < fields.n; ++choice) {
    GenerationRequest request;
    request.request_id = plan->request_id;
    request.prompt = prompt.ids;
    request.produced = resumed;
    request.sampling = params;
    request.seed = seed;
    request.choice = static_cast<uint32_t>(choice);
    plan->sequences.push_back({prompt_index, std::move(request), output});
  }
  plan->prompts.push_back(std::move(prompt));
  return std::nullopt;
}

uint64_t seed_of(Serving& serving, const GenerationFields& fields) {
  const std::optional<int64_t>& asked = fields.sampling.seed;
  return asked ? static_cast<uint64_t>(*asked) : serving.draw_seed();
}

ApiResult<std::optional<ReasoningParser>> reasoning_parser(const Serving& serving,
                                                           std::string_view prompt) {
  if (serving.options.reasoning_parser.empty()) return std::optional<ReasoningParser>();
  StatusOr<ReasoningParser> parser =
      ReasoningParser::make(serving.options.reasoning_parser, prompt);
  if (!parser.ok()) return ApiError{parser.status()};
  return std::optional<ReasoningParser>(std::move(*parser));
}

std::string tail_text(const Serving& serving, const std::vector<TokenId>& ids) {
  const size_t from = ids.size() - std::min(ids.size(), kPromptTailTokens);
  return serving.tokenizer->decode(std::span(ids).subspan(from), false);
}

}  // namespace

ApiResult<std::string> render_chat(const Serving& serving,
                                   const std::vector<openai::ChatMessage>& messages,
                                   const openai::TemplateKwargs& kwargs,
                                   bool add_generation_prompt) {
  if (serving.chat_template == nullptr) {
    return ApiError::bad_value(
        "messages",
        "messages: this model has no chat template; use /v1/completions, or start the "
        "server with --chat-template",
        "no_chat_template");
  }
  StatusOr<std::string> text =
      serving.chat_template->render({.messages_json = openai::to_json(messages),
                                     .add_generation_prompt = add_generation_prompt,
                                     .kwargs_json = openai::to_json(kwargs)});
  if (!text.ok()) return ApiError{text.status(), "messages"};
  return std::move(*text);
}

ApiResult<GenerationPlan> plan_chat(Serving& serving,
                                    openai::ChatRequest request,
                                    const std::string& request_id) {
  GenerationFields& fields = request.common;
  GenerationPlan plan = make_plan(serving, Dialect::kChat, fields, request_id);
  PlannedPrompt prompt;
  std::string prompt_end;
  if (!fields.prompt_token_ids.empty()) {
    prompt.ids = std::move(fields.prompt_token_ids.front());
    prompt_end = tail_text(serving, prompt.ids);
  } else {
    ApiResult<std::string> text =
        request.disable_chat_template
            ? ApiResult<std::string>(std::move(request.messages.front().content))
            : render_chat(serving,
                          request.messages,
                          request.template_kwargs,
                          request.add_generation_prompt);
    if (!text.ok()) return text.error();
    prompt_end = std::move(text).value();
    // A template writes its own BOS; a text without a template is taken as a completion's prompt
    // would be.
    auto ids = encode(serving, "messages", prompt_end, request.disable_chat_template);
    if (!ids.ok()) return ids.error();
    prompt.ids = std::move(ids).value();
  }
  auto reasoning = reasoning_parser(serving, prompt_end);
  if (!reasoning.ok()) return reasoning.error();
  std::vector<std::vector<TokenId>> bad_words;
  if (auto wrong = append_bad_words(serving, fields.sampling.bad_words, &bad_words)) return *wrong;
  if (auto wrong = add_sequences(serving,
                                 fields,
                                 bad_words,
                                 reasoning.value(),
                                 seed_of(serving, fields),
                                 -1,
                                 std::move(prompt),
                                 &plan)) {
    return *wrong;
  }
  return plan;
}

ApiResult<GenerationPlan> plan_completion(Serving& serving,
                                          openai::CompletionRequest request,
                                          const std::string& request_id) {
  const GenerationFields& fields = request.common;
  GenerationPlan plan = make_plan(serving, Dialect::kCompletion, fields, request_id);
  plan.num_prompt_logprobs = request.prompt_logprobs.value_or(-1);
  int64_t prompt_logprobs = plan.num_prompt_logprobs;
  if (request.echo) prompt_logprobs = std::max(prompt_logprobs, plan.num_logprobs);
  std::vector<std::vector<TokenId>> bad_words;
  if (auto wrong = append_bad_words(serving, fields.sampling.bad_words, &bad_words)) return *wrong;
  const uint64_t seed = seed_of(serving, fields);
  for (openai::PromptInput& input : request.prompts) {
    PlannedPrompt prompt;
    if (auto* ids = std::get_if<std::vector<TokenId>>(&input)) {
      prompt.ids = std::move(*ids);
      if (request.echo) {
        prompt.echo = serving.tokenizer->decode(prompt.ids, fields.sampling.skip_special_tokens);
      }
    } else {
      std::string& text = std::get<std::string>(input);
      auto encoded = encode(serving, "prompt", text, request.add_special_tokens);
      if (!encoded.ok()) return encoded.error();
      prompt.ids = std::move(encoded).value();
      if (request.echo) prompt.echo = std::move(text);
    }
    if (auto wrong = add_sequences(serving,
                                   fields,
                                   bad_words,
                                   std::nullopt,
                                   seed,
                                   static_cast<int32_t>(prompt_logprobs),
                                   std::move(prompt),
                                   &plan)) {
      return *wrong;
    }
  }
  return plan;
}

}  // namespace flotilla
