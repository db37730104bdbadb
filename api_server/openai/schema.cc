#include "api_server/openai/schema.h"

#include <algorithm>
#include <limits>

#include "api_server/openai/schema_fields.h"

namespace flotilla::openai {
namespace {

constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr size_t kAnyLength = static_cast<size_t>(-1);

// Fields whose meaning depends on each other are put aside until all have been read.
struct ChatDraft {
  ChatRequest request;
  bool logprobs = false;
  std::optional<int64_t> top_logprobs;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> max_completion_tokens;
  bool has_stream_options = false;
  std::string reasoning_effort;
  std::optional<bool> metadata_thinking;
};

struct CompletionDraft {
  CompletionRequest request;
  std::optional<int64_t> best_of;
  std::optional<int64_t> logprobs;
  bool has_stream_options = false;
};

// Reads one JSON object: rows of `table`, then of the common table, then what we refuse; the rest
// is ignored.
template <typename Draft>
Complaint read_object(const simdjson::dom::object& root,
                      const FieldTable<Draft>& table,
                      GenerationFields* common,
                      const SchemaLimits& limits,
                      Draft* draft) {
  for (const auto [key, value] : root) {
    if (value.is_null()) continue;
    if (const auto own = table.find(key); own != table.end()) {
      if (auto wrong = own->second({std::string(key), value}, limits, draft)) return wrong;
      continue;
    }
    if (common == nullptr) continue;
    const auto shared = common_fields().find(key);
    const Field field{std::string(key.substr(0, 64)), value};
    if (shared != common_fields().end()) {
      if (auto wrong = shared->second(field, limits, common)) return wrong;
    } else if (auto refused = refuse_if_unsupported(field)) {
      return refused;
    }
    if constexpr (requires { draft->has_stream_options; }) {
      if (key == "stream_options") draft->has_stream_options = true;
    }
  }
  return std::nullopt;
}

// FastDeploy's `messages` may be token ids.
Complaint read_chat_messages(const Field& field, const SchemaLimits& limits, ChatDraft* out) {
  simdjson::dom::array list;
  if (field.value.get(list) == simdjson::SUCCESS && list.size() > 0 && (*list.begin()).is_int64()) {
    out->request.common.prompt_token_ids.assign(1, {});
    return read(field, kMaxCount, limits.vocab_size, &out->request.common.prompt_token_ids[0]);
  }
  return read_messages(field, &out->request.messages);
}

// FastDeploy once took any field in here; its clients still switch thinking this way.
Complaint read_metadata(const Field& field, std::optional<bool>* thinking) {
  simdjson::dom::object metadata;
  if (field.value.get(metadata) != simdjson::SUCCESS) return complaint(field, "an object");
  for (const auto [key, value] : metadata) {
    if (key == "raw_request") {
      return ApiError::not_in_this_version("metadata.raw_request",
                                           "metadata.raw_request: a raw request");
    }
    bool on = false;
    if (key == "enable_thinking" && value.get(on) == simdjson::SUCCESS) *thinking = on;
  }
  return std::nullopt;
}

Complaint read_reasoning_effort(const Field& field, std::string* out) {
  static constexpr std::string_view kEfforts[] = {
      "none", "minimal", "low", "medium", "high", "xhigh", "max"};
  std::string_view effort;
  if (field.value.get(effort) != simdjson::SUCCESS ||
      std::find(std::begin(kEfforts), std::end(kEfforts), effort) == std::end(kEfforts)) {
    return complaint(field, "one of none, minimal, low, medium, high, xhigh, max");
  }
  out->assign(effort);
  return std::nullopt;
}

const FieldTable<ChatDraft>& chat_fields() {
  using Out = ChatDraft*;
  using Limits = const SchemaLimits&;
  static const FieldTable<ChatDraft> kFields = {
      {"messages", read_chat_messages},
      {"max_tokens",
       [](const Field& f, Limits, Out o) { return read(f, 1, kMaxCount, &o->max_tokens); }},
      {"max_completion_tokens",
       [](const Field& f, Limits, Out o) {
         return read(f, 1, kMaxCount, &o->max_completion_tokens);
       }},
      {"logprobs", [](const Field& f, Limits, Out o) { return read(f, &o->logprobs); }},
      {"top_logprobs",
       [](const Field& f, Limits l, Out o) {
         return read(f, -1, l.max_logprobs, &o->top_logprobs);
       }},
      {"prompt_logprobs",
       [](const Field&, Limits, Out) -> Complaint {
         return ApiError::not_in_this_version(
             "prompt_logprobs", "prompt_logprobs: log probabilities of a chat's prompt");
       }},
      {"chat_template_kwargs",
       [](const Field& f, Limits, Out o) {
         return read_template_kwargs(f, &o->request.template_kwargs);
       }},
      {"reasoning_effort",
       [](const Field& f, Limits, Out o) {
         return read_reasoning_effort(f, &o->reasoning_effort);
       }},
      {"metadata",
       [](const Field& f, Limits, Out o) { return read_metadata(f, &o->metadata_thinking); }},
      {"add_generation_prompt",
       [](const Field& f, Limits, Out o) { return read(f, &o->request.add_generation_prompt); }},
      {"disable_chat_template",
       [](const Field& f, Limits, Out o) { return read(f, &o->request.disable_chat_template); }},
  };
  return kFields;
}

Complaint read_prompt(const Field& field,
                      const SchemaLimits& limits,
                      std::vector<PromptInput>* out) {
  std::string_view text;
  if (field.value.get(text) == simdjson::SUCCESS) {
    out->assign(1, std::string(text));
    return std::nullopt;
  }
  simdjson::dom::array list;
  if (field.value.get(list) != simdjson::SUCCESS || list.size() == 0) {
    return complaint(field, "a string, a list of strings, of token ids, or of lists of token ids");
  }
  out->clear();
  if ((*list.begin()).is_number()) {
    std::vector<TokenId> ids;
    if (auto wrong = read(field, kMaxCount, limits.vocab_size, &ids)) return wrong;
    out->emplace_back(std::move(ids));
    return std::nullopt;
  }
  if (list.size() > kMaxPrompts) {
    return complaint(field, "at most " + std::to_string(kMaxPrompts) + " prompts");
  }
  for (const Json element : list) {
    const Field item = field.at(out->size(), element);
    if (element.get(text) == simdjson::SUCCESS) {
      out->emplace_back(std::string(text));
      continue;
    }
    if (!element.is_array()) return complaint(item, "a string or a list of token ids");
    std::vector<TokenId> ids;
    if (auto wrong = read(item, kMaxCount, limits.vocab_size, &ids)) return wrong;
    out->emplace_back(std::move(ids));
  }
  return std::nullopt;
}

const FieldTable<CompletionDraft>& completion_fields() {
  using Out = CompletionDraft*;
  using Limits = const SchemaLimits&;
  static const FieldTable<CompletionDraft> kFields = {
      {"prompt",
       [](const Field& f, Limits l, Out o) { return read_prompt(f, l, &o->request.prompts); }},
      {"max_tokens",
       [](const Field& f, Limits, Out o) {
         return read(f, 0, kMaxCount, &o->request.common.sampling.max_tokens);
       }},
      {"logprobs",
       [](const Field& f, Limits l, Out o) { return read(f, -1, l.max_logprobs, &o->logprobs); }},
      {"prompt_logprobs",
       [](const Field& f, Limits l, Out o) {
         return read(f, -1, l.max_logprobs, &o->request.prompt_logprobs);
       }},
      {"echo", [](const Field& f, Limits, Out o) { return read(f, &o->request.echo); }},
      {"best_of", [](const Field& f, Limits l, Out o) { return read(f, 1, l.max_n, &o->best_of); }},
      {"add_special_tokens",
       [](const Field& f, Limits, Out o) { return read(f, &o->request.add_special_tokens); }},
  };
  return kFields;
}

// −1 asks for as many as there may be.
int64_t resolve_logprobs(int64_t asked, const SchemaLimits& limits) {
  return asked < 0 ? limits.max_logprobs : asked;
}

Complaint finish_common(bool has_stream_options, GenerationFields* common) {
  if (common->model.empty()) common->model = "default";
  if (has_stream_options && !common->stream) {
    return ApiError::bad_value("stream_options",
                               "stream_options: only allowed with \"stream\": true");
  }
  if (!common->completion_token_ids.empty() && common->n != 1) {
    return ApiError::bad_value("completion_token_ids",
                               "completion_token_ids: got n = " + std::to_string(common->n) +
                                   ", expected n = 1: a resumed request has one choice");
  }
  return std::nullopt;
}

Complaint finish_chat(const SchemaLimits& limits, ChatDraft* draft) {
  ChatRequest& request = draft->request;
  GenerationFields& common = request.common;
  if (auto wrong = finish_common(draft->has_stream_options, &common)) return wrong;
  if (request.messages.empty() && common.prompt_token_ids.empty()) {
    return ApiError::bad_value("messages", "messages: missing, expected a list of messages");
  }
  if (common.prompt_token_ids.size() > 1) {
    return ApiError::bad_value("prompt_token_ids",
                               "prompt_token_ids: got " +
                                   std::to_string(common.prompt_token_ids.size()) +
                                   " prompts, expected one list of token ids in a chat");
  }
  if (draft->top_logprobs.value_or(0) != 0 && !draft->logprobs) {
    return ApiError::bad_value("top_logprobs",
                               "top_logprobs: only allowed with \"logprobs\": true");
  }
  if (draft->logprobs) common.logprobs = resolve_logprobs(draft->top_logprobs.value_or(0), limits);
  common.sampling.max_tokens =
      draft->max_completion_tokens ? draft->max_completion_tokens : draft->max_tokens;
  if (draft->metadata_thinking) {
    set_default_kwarg(
        &request.template_kwargs, "enable_thinking", *draft->metadata_thinking ? "true" : "false");
  }
  if (!draft->reasoning_effort.empty()) {
    set_default_kwarg(
        &request.template_kwargs, "reasoning_effort", '"' + draft->reasoning_effort + '"');
    if (draft->reasoning_effort == "none") {
      set_default_kwarg(&request.template_kwargs, "enable_thinking", "false");
    }
  }
  return std::nullopt;
}

Complaint finish_completion(const SchemaLimits& limits, CompletionDraft* draft) {
  CompletionRequest& request = draft->request;
  GenerationFields& common = request.common;
  if (auto wrong = finish_common(draft->has_stream_options, &common)) return wrong;
  for (std::vector<TokenId>& ids : common.prompt_token_ids) {
    if (&ids == &common.prompt_token_ids.front()) request.prompts.clear();
    request.prompts.emplace_back(std::move(ids));
  }
  common.prompt_token_ids.clear();
  if (request.prompts.empty()) {
    return ApiError::bad_value("prompt", "prompt: missing, expected a string or a list");
  }
  if (draft->best_of && *draft->best_of != common.n) {
    return ApiError::not_in_this_version("best_of", "best_of: a value other than n");
  }
  if (common.sampling.max_tokens == 0 && !request.echo) {
    return ApiError::bad_value("max_tokens",
                               "max_tokens: got 0, expected at least 1 (0 is for \"echo\": true)");
  }
  if (!common.completion_token_ids.empty() && request.prompts.size() != 1) {
    return ApiError::bad_value("completion_token_ids",
                               "completion_token_ids: got " +
                                   std::to_string(request.prompts.size()) +
                                   " prompts, expected one: a resumed request has one choice");
  }
  if (draft->logprobs) common.logprobs = resolve_logprobs(*draft->logprobs, limits);
  if (request.prompt_logprobs) {
    if (common.stream) {
      return ApiError::bad_value("prompt_logprobs",
                                 "prompt_logprobs: not available with \"stream\": true");
    }
    request.prompt_logprobs = resolve_logprobs(*request.prompt_logprobs, limits);
  }
  return std::nullopt;
}

const FieldTable<TokenizeRequest>& tokenize_fields() {
  using Out = TokenizeRequest*;
  using Limits = const SchemaLimits&;
  static const FieldTable<TokenizeRequest> kFields = {
      {"model", [](const Field& f, Limits, Out o) { return read(f, 1024, &o->model); }},
      {"prompt",
       [](const Field& f, Limits, Out o) { return read(f, kAnyLength, &o->prompt.emplace()); }},
      {"messages", [](const Field& f, Limits, Out o) { return read_messages(f, &o->messages); }},
      {"chat_template_kwargs",
       [](const Field& f, Limits, Out o) { return read_template_kwargs(f, &o->template_kwargs); }},
      {"add_special_tokens",
       [](const Field& f, Limits, Out o) { return read(f, &o->add_special_tokens.emplace()); }},
      {"add_generation_prompt",
       [](const Field& f, Limits, Out o) { return read(f, &o->add_generation_prompt); }},
      {"return_token_strs",
       [](const Field& f, Limits, Out o) { return read(f, &o->return_token_strs); }},
  };
  return kFields;
}

const FieldTable<DetokenizeRequest>& detokenize_fields() {
  using Out = DetokenizeRequest*;
  using Limits = const SchemaLimits&;
  static const FieldTable<DetokenizeRequest> kFields = {
      {"model", [](const Field& f, Limits, Out o) { return read(f, 1024, &o->model); }},
      {"tokens",
       [](const Field& f, Limits l, Out o) {
         return read(f, kMaxCount, l.vocab_size, &o->tokens);
       }},
  };
  return kFields;
}

}  // namespace

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const SchemaLimits& limits) {
  JsonDocument document;
  ChatDraft draft;
  if (auto wrong = document.parse(body)) return std::move(*wrong);
  if (auto wrong =
          read_object(document.root(), chat_fields(), &draft.request.common, limits, &draft)) {
    return std::move(*wrong);
  }
  if (auto wrong = finish_chat(limits, &draft)) return std::move(*wrong);
  return std::move(draft.request);
}

ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const SchemaLimits& limits) {
  JsonDocument document;
  CompletionDraft draft;
  if (auto wrong = document.parse(body)) return std::move(*wrong);
  if (auto wrong = read_object(
          document.root(), completion_fields(), &draft.request.common, limits, &draft)) {
    return std::move(*wrong);
  }
  if (auto wrong = finish_completion(limits, &draft)) return std::move(*wrong);
  return std::move(draft.request);
}

ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const SchemaLimits& limits) {
  JsonDocument document;
  TokenizeRequest request;
  if (auto wrong = document.parse(body)) return std::move(*wrong);
  if (auto wrong = read_object(document.root(), tokenize_fields(), nullptr, limits, &request)) {
    return std::move(*wrong);
  }
  if (request.model.empty()) request.model = "default";
  if (request.prompt.has_value() == !request.messages.empty()) {
    return ApiError::bad_value("prompt", "prompt, messages: expected exactly one of the two");
  }
  return request;
}

ApiResult<DetokenizeRequest> parse_detokenize_request(std::string_view body,
                                                      const SchemaLimits& limits) {
  JsonDocument document;
  DetokenizeRequest request;
  if (auto wrong = document.parse(body)) return std::move(*wrong);
  bool has_tokens = false;
  for (const auto [key, value] : document.root()) has_tokens |= key == "tokens" && !value.is_null();
  if (auto wrong = read_object(document.root(), detokenize_fields(), nullptr, limits, &request)) {
    return std::move(*wrong);
  }
  if (request.model.empty()) request.model = "default";
  if (!has_tokens) {
    return ApiError::bad_value("tokens", "tokens: missing, expected a list of token ids");
  }
  return request;
}

bool is_valid_request_id(std::string_view id) {
  if (id.empty() || id.size() > kMaxRequestIdBytes) return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return c > 0x20 && c < 0x7F && c != '"' && c != '\\' && c != '<';
  });
}

}  // namespace flotilla::openai
