#include "api_server/openai/schema_fields.h"

#include <charconv>
#include <limits>

namespace flotilla::openai {
namespace {

constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr double kMaxFloat = std::numeric_limits<float>::max();
constexpr size_t kMaxNameBytes = 1024;

Complaint read_stop(const Field& field, const SchemaLimits&, GenerationFields* out) {
  std::string_view one;
  if (field.value.get(one) != simdjson::SUCCESS) {
    return read(field, kMaxStops, kMaxStopBytes, &out->sampling.stop);
  }
  if (one.empty() || one.size() > kMaxStopBytes) {
    return complaint(field, "a string of 1 to " + std::to_string(kMaxStopBytes) + " bytes");
  }
  out->sampling.stop = {std::string(one)};
  return std::nullopt;
}

Complaint read_logit_bias(const Field& field, const SchemaLimits& limits, GenerationFields* out) {
  simdjson::dom::object biases;
  if (field.value.get(biases) != simdjson::SUCCESS || biases.size() > kMaxLogitBias) {
    return complaint(
        field, "an object of at most " + std::to_string(kMaxLogitBias) + " biases by token id");
  }
  out->sampling.logit_bias.clear();
  for (const auto [key, value] : biases) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const Field entry = field.at(key.substr(0, 20), value);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 ||
        id >= limits.vocab_size) {
      return ApiError::bad_value(field.path,
                                 entry.path + ": the key is no token id from 0 to " +
                                     std::to_string(limits.vocab_size - 1));
    }
    std::optional<double> bias;
    if (auto wrong = read(entry, {-100, 100}, &bias)) return wrong;
    out->sampling.logit_bias.push_back({static_cast<TokenId>(id), static_cast<float>(*bias)});
  }
  return std::nullopt;
}

Complaint read_stream_options(const Field& field, const SchemaLimits&, GenerationFields* out) {
  simdjson::dom::object options;
  if (field.value.get(options) != simdjson::SUCCESS) return complaint(field, "an object");
  for (const auto [key, value] : options) {
    if (value.is_null()) continue;
    bool* const target = key == "include_usage"            ? &out->include_usage
                         : key == "continuous_usage_stats" ? &out->continuous_usage_stats
                                                           : nullptr;
    if (target == nullptr) continue;
    if (auto wrong = read(field.at(key, value), target)) return wrong;
  }
  return std::nullopt;
}

Complaint read_request_id(const Field& field, const SchemaLimits&, GenerationFields* out) {
  std::string id;
  if (read(field, kMaxRequestIdBytes, &id) || !is_valid_request_id(id)) {
    return complaint(field, "1 to 128 visible ASCII characters without quotes, '<' and '\\'");
  }
  out->request_id = std::move(id);
  return std::nullopt;
}

Complaint read_prompt_token_ids(const Field& field,
                                const SchemaLimits& limits,
                                GenerationFields* out) {
  simdjson::dom::array list;
  if (field.value.get(list) != simdjson::SUCCESS || list.size() == 0) {
    return complaint(field, "a list of token ids, or a list of such lists");
  }
  out->prompt_token_ids.clear();
  if (!(*list.begin()).is_array()) {
    return read(field, kMaxCount, limits.vocab_size, &out->prompt_token_ids.emplace_back());
  }
  if (list.size() > kMaxPrompts) {
    return complaint(field, "at most " + std::to_string(kMaxPrompts) + " prompts");
  }
  for (const Json element : list) {
    const Field item = field.at(out->prompt_token_ids.size(), element);
    if (auto wrong =
            read(item, kMaxCount, limits.vocab_size, &out->prompt_token_ids.emplace_back())) {
      return wrong;
    }
  }
  return std::nullopt;
}

// A field that we know but do not need: only its type is checked.
template <typename Value>
Complaint check_only(const Field& field, std::string_view expected) {
  Value ignored;
  if (field.value.get(ignored) != simdjson::SUCCESS) return complaint(field, expected);
  return std::nullopt;
}

struct Unsupported {
  std::string_view what;
  bool even_switched_off = false;
};

const std::unordered_map<std::string_view, Unsupported>& unsupported_fields() {
  static const std::unordered_map<std::string_view, Unsupported> kFields = {
      {"tools", {"tool calling (a non-empty list of tools)"}},
      {"functions", {"tool calling"}},
      {"guided_json", {"structured output", true}},
      {"guided_regex", {"structured output", true}},
      {"guided_choice", {"structured output", true}},
      {"guided_grammar", {"structured output", true}},
      {"structural_tag", {"structured output", true}},
      {"structured_outputs", {"structured output"}},
      {"grammar", {"structured output"}},
      {"json_schema", {"structured output"}},
      {"logits_processors_args", {"a logits processor"}},
      {"logits_processors", {"a logits processor"}},
      {"allowed_token_ids", {"a list of allowed tokens"}},
      {"chat_template", {"a chat template in the request"}},
      {"continue_final_message", {"continuing the last message"}},
      {"reasoning_max_tokens", {"a limit of reasoning tokens", true}},
      {"response_max_tokens", {"a limit of response tokens", true}},
      {"thinking_token_budget", {"a limit of reasoning tokens", true}},
      {"truncate_prompt_tokens", {"truncating the prompt", true}},
      {"use_beam_search", {"beam search"}},
      {"suffix", {"text insertion"}},
      {"disaggregate_info", {"serving with prefill and decode apart"}},
      {"kv_transfer_params", {"serving with prefill and decode apart"}},
      {"mm_hashes", {"multimodal input"}},
      {"audio", {"audio"}},
      {"prediction", {"a predicted output"}},
      {"web_search_options", {"web search"}},
      {"include_draft_logprobs", {"speculative decoding"}},
      {"temp_scaled_logprobs", {"log probabilities after the temperature"}},
      {"top_p_normalized_logprobs", {"log probabilities after top_p"}},
      {"cache_salt", {"a salt for the prefix cache"}},
  };
  return kFields;
}

Complaint refuse(const Field& field, std::string_view what) {
  return ApiError::not_in_this_version(field.path, field.path + ": " + std::string(what));
}

Complaint refuse_response_format(const Field& field) {
  std::string_view type;
  if (!field.value.is_object()) return complaint(field, "an object with a type");
  if (field.value["type"].get(type) != simdjson::SUCCESS) {
    return ApiError::bad_value(field.path, field.path + ": expected {\"type\":\"text\"}");
  }
  if (type == "text") return std::nullopt;
  return refuse(
      {field.path, field.value["type"].value_unsafe()},
      "a type other than \"text\" (got " + shown(field.value["type"].value_unsafe()) + ")");
}

}  // namespace

const FieldTable<GenerationFields>& common_fields() {
  using Out = GenerationFields*;
  using Limits = const SchemaLimits&;
  static const FieldTable<GenerationFields> kFields = {
      {"model", [](const Field& f, Limits, Out o) { return read(f, kMaxNameBytes, &o->model); }},
      {"n", [](const Field& f, Limits l, Out o) { return read(f, 1, l.max_n, &o->n); }},
      {"temperature",
       [](const Field& f, Limits, Out o) {
         return read(f, {0, kMaxFloat}, &o->sampling.temperature);
       }},
      {"top_p",
       [](const Field& f, Limits, Out o) {
         return read(f, {0, 1}, &o->sampling.top_p);
       }},
      {"min_p",
       [](const Field& f, Limits, Out o) {
         return read(f, {0, 1}, &o->sampling.min_p);
       }},
      {"presence_penalty",
       [](const Field& f, Limits, Out o) {
         return read(f, {-2, 2}, &o->sampling.presence_penalty);
       }},
      {"frequency_penalty",
       [](const Field& f, Limits, Out o) {
         return read(f, {-2, 2}, &o->sampling.frequency_penalty);
       }},
      {"repetition_penalty",
       [](const Field& f, Limits, Out o) {
         return read(f, {0, kMaxFloat, true}, &o->sampling.repetition_penalty);
       }},
      {"top_k",
       [](const Field& f, Limits, Out o) { return read(f, -1, kMaxCount, &o->sampling.top_k); }},
      {"seed",
       [](const Field& f, Limits, Out o) { return read(f, 0, kMaxSeed, &o->sampling.seed); }},
      {"min_tokens",
       [](const Field& f, Limits, Out o) {
         return read(f, 0, kMaxCount, &o->sampling.min_tokens);
       }},
      {"logit_bias", read_logit_bias},
      {"bad_words",
       [](const Field& f, Limits, Out o) {
         return read(f, kMaxBadWords, kMaxBadWordBytes, &o->sampling.bad_words);
       }},
      {"bad_words_token_ids",
       [](const Field& f, Limits l, Out o) {
         return read(f, kMaxBadWords, l.vocab_size, &o->sampling.bad_words_token_ids);
       }},
      {"stop", read_stop},
      {"stop_token_ids",
       [](const Field& f, Limits l, Out o) {
         return read(f, kMaxStopTokenIds, l.vocab_size, &o->sampling.stop_token_ids);
       }},
      {"ignore_eos",
       [](const Field& f, Limits, Out o) { return read(f, &o->sampling.ignore_eos); }},
      {"include_stop_str_in_output",
       [](const Field& f, Limits, Out o) {
         return read(f, &o->sampling.include_stop_str_in_output);
       }},
      {"skip_special_tokens",
       [](const Field& f, Limits, Out o) { return read(f, &o->sampling.skip_special_tokens); }},
      {"stream", [](const Field& f, Limits, Out o) { return read(f, &o->stream); }},
      {"stream_options", read_stream_options},
      {"request_id", read_request_id},
      {"return_token_ids",
       [](const Field& f, Limits, Out o) { return read(f, &o->return_token_ids); }},
      {"return_tokens_as_token_ids",
       [](const Field& f, Limits, Out o) { return read(f, &o->tokens_as_ids); }},
      {"include_logprobs_decode_token",
       [](const Field& f, Limits, Out o) -> Complaint {
         bool decode = true;
         if (auto wrong = read(f, &decode)) return wrong;
         o->tokens_as_ids = !decode;
         return std::nullopt;
       }},
      {"max_streaming_response_tokens",
       [](const Field& f, Limits, Out o) { return read(f, 1, kMaxCount, &o->tokens_per_chunk); }},
      {"prompt_token_ids", read_prompt_token_ids},
      {"completion_token_ids",
       [](const Field& f, Limits l, Out o) {
         return read(f, kMaxCount, l.vocab_size, &o->completion_token_ids);
       }},
      {"user",
       [](const Field& f, Limits, Out) { return check_only<std::string_view>(f, "a string"); }},
  };
  return kFields;
}

Complaint refuse_if_unsupported(const Field& field) {
  if (field.path == "response_format") return refuse_response_format(field);
  if (field.path == "tool_choice" || field.path == "function_call") {
    std::string_view choice;
    if (field.value.get(choice) == simdjson::SUCCESS && choice == "none") return std::nullopt;
    return refuse(field, "tool calling (any choice but \"none\")");
  }
  if (field.path == "modalities") {
    simdjson::dom::array list;
    if (field.value.get(list) != simdjson::SUCCESS) return complaint(field, "a list of strings");
    for (const Json element : list) {
      std::string_view modality;
      if (element.get(modality) != simdjson::SUCCESS || modality != "text") {
        return refuse(field, "a modality other than \"text\"");
      }
    }
    return std::nullopt;
  }
  const auto it = unsupported_fields().find(field.path);
  if (it == unsupported_fields().end()) return std::nullopt;
  if (!it->second.even_switched_off && is_switched_off(field.value)) return std::nullopt;
  return refuse(field, it->second.what);
}

}  // namespace flotilla::openai
