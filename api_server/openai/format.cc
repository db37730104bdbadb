#include "api_server/openai/format.h"

#include <charconv>
#include <cmath>

#include "common/crypto.h"
#include "common/json.h"

namespace flotilla::openai {
namespace {

constexpr float kLowestLogprob = -9999.0f;  // as vLLM: JSON has no −∞

float shown(float logprob) { return std::isfinite(logprob) ? logprob : kLowestLogprob; }

void append_integer(std::string* out, uint64_t number) {
  char buffer[24];
  out->append(buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr);
}

void append_ids(std::string* out, std::span<const TokenId> ids) {
  *out += '[';
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) *out += ',';
    char buffer[16];
    out->append(buffer, std::to_chars(buffer, buffer + sizeof buffer, ids[i]).ptr);
  }
  *out += ']';
}

void append_usage_object(std::string* out, const Usage& usage) {
  *out += "{\"prompt_tokens\":";
  append_integer(out, usage.prompt_tokens);
  *out += ",\"completion_tokens\":";
  append_integer(out, usage.completion_tokens);
  *out += ",\"total_tokens\":";
  append_integer(out, usage.prompt_tokens + usage.completion_tokens);
  *out += ",\"prompt_tokens_details\":{\"cached_tokens\":";
  append_integer(out, usage.cached_tokens);
  *out += '}';
  if (usage.reasoning_tokens) {
    *out += ",\"completion_tokens_details\":{\"reasoning_tokens\":";
    append_integer(out, *usage.reasoning_tokens);
    *out += '}';
  }
  *out += '}';
}

// {"token":…,"logprob":…,"bytes":[…] without the closing brace.
void append_named(std::string* out, const NamedLogprob& named) {
  *out += "{\"token\":";
  append_json_string(out, named.token);
  *out += ",\"logprob\":";
  append_json_number(out, shown(named.logprob));
  *out += ",\"bytes\":";
  if (!named.bytes) {
    *out += "null";
    return;
  }
  *out += '[';
  for (size_t i = 0; i < named.bytes->size(); ++i) {
    if (i > 0) *out += ',';
    append_integer(out, static_cast<unsigned char>((*named.bytes)[i]));
  }
  *out += ']';
}

void append_chat_logprobs(std::string* out, std::span<const LogprobEntry> entries) {
  *out += "{\"content\":[";
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) *out += ',';
    append_named(out, entries[i].chosen);
    *out += ",\"top_logprobs\":[";
    for (size_t k = 0; k < entries[i].top.size(); ++k) {
      if (k > 0) *out += ',';
      append_named(out, entries[i].top[k]);
      *out += '}';
    }
    *out += "]}";
  }
  *out += "],\"refusal\":null}";
}

// The sampled token is always there, so there may be one more than asked for (OpenAI's reference of
// `logprobs`).
void append_top_by_text(std::string* out, const LogprobEntry& entry) {
  *out += '{';
  bool chosen_is_listed = false;
  bool first = true;
  const auto append = [&](const NamedLogprob& named) {
    if (!first) *out += ',';
    first = false;
    append_json_string(out, named.token);
    *out += ':';
    append_json_number(out, shown(named.logprob));
  };
  for (size_t k = 0; k < entry.top.size(); ++k) {
    // Two tokens may read alike (parts of characters do): an object can show the better one only.
    bool repeated = false;
    for (size_t j = 0; j < k; ++j) repeated |= entry.top[j].token == entry.top[k].token;
    if (!repeated) append(entry.top[k]);
    chosen_is_listed |= entry.top[k].token == entry.chosen.token;
  }
  if (!chosen_is_listed) append(entry.chosen);
  *out += '}';
}

void append_completion_logprobs(std::string* out, std::span<const LogprobEntry> entries) {
  const auto list = [&](std::string_view name, auto append_one) {
    *out += name;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) *out += ',';
      append_one(entries[i]);
    }
    *out += ']';
  };
  list("{\"text_offset\":[", [&](const LogprobEntry& e) { append_integer(out, e.text_offset); });
  list(",\"token_logprobs\":[", [&](const LogprobEntry& e) {
    if (e.has_logprob) {
      append_json_number(out, shown(e.chosen.logprob));
    } else {
      *out += "null";
    }
  });
  list(",\"tokens\":[", [&](const LogprobEntry& e) { append_json_string(out, e.chosen.token); });
  list(",\"top_logprobs\":[", [&](const LogprobEntry& e) {
    if (e.has_logprob) {
      append_top_by_text(out, e);
    } else {
      *out += "null";
    }
  });
  *out += '}';
}

void append_logprobs(std::string* out,
                     Dialect dialect,
                     bool shown,
                     std::span<const LogprobEntry> entries) {
  *out += ",\"logprobs\":";
  if (!shown) {
    *out += "null";
  } else if (dialect == Dialect::kChat) {
    append_chat_logprobs(out, entries);
  } else {
    append_completion_logprobs(out, entries);
  }
}

void append_finish(std::string* out,
                   std::optional<FinishReason> finish,
                   const StopReason* stop_reason) {
  if (!finish) {
    *out += ",\"finish_reason\":null";
    return;
  }
  *out += ",\"finish_reason\":\"";
  *out += finish_reason_name(*finish);
  *out += "\",\"stop_reason\":";
  if (stop_reason != nullptr && std::holds_alternative<std::string>(*stop_reason)) {
    append_json_string(out, std::get<std::string>(*stop_reason));
  } else if (stop_reason != nullptr && std::holds_alternative<TokenId>(*stop_reason)) {
    append_integer(out, static_cast<uint64_t>(std::get<TokenId>(*stop_reason)));
  } else {
    *out += "null";
  }
}

void append_prompt_logprobs(std::string* out, const PromptLogprobs& positions) {
  *out += ",\"prompt_logprobs\":[";
  for (size_t i = 0; i < positions.size(); ++i) {
    if (i > 0) *out += ',';
    if (positions[i].empty()) {
      *out += "null";
      continue;
    }
    *out += '{';
    for (size_t k = 0; k < positions[i].size(); ++k) {
      const PromptLogprob& p = positions[i][k];
      *out += k > 0 ? ",\"" : "\"";
      append_integer(out, static_cast<uint64_t>(p.token));
      *out += "\":{\"logprob\":";
      append_json_number(out, shown(p.logprob));
      *out += ",\"rank\":";
      if (p.rank > 0) {
        append_integer(out, static_cast<uint64_t>(p.rank));
      } else {
        *out += "null";
      }
      *out += ",\"decoded_token\":";
      append_json_string(out, p.decoded);
      *out += '}';
    }
    *out += '}';
  }
  *out += ']';
}

std::string head_fields(const AnswerHead& head, std::string_view object) {
  std::string out = "{\"id\":";
  append_json_string(&out, head.id);
  out += ",\"object\":\"";
  out += object;
  out += "\",\"created\":" + std::to_string(head.created) + ",\"model\":";
  append_json_string(&out, head.model);
  return out;
}

void append_message(std::string* out, const Choice& choice) {
  *out += ",\"message\":{\"role\":\"assistant\",\"content\":";
  if (choice.has_text) {
    append_json_string(out, choice.text);
  } else {
    *out += "null";
  }
  *out += ",\"refusal\":null";
  if (choice.reasoning) {
    *out += ",\"reasoning_content\":";
    append_json_string(out, *choice.reasoning);
  }
  if (choice.show_token_ids) {
    *out += ",\"prompt_token_ids\":";
    append_ids(out, choice.prompt_token_ids);
    *out += ",\"completion_token_ids\":";
    append_ids(out, choice.token_ids);
  }
  *out += '}';
}

void append_choice(std::string* out, Dialect dialect, const Choice& choice) {
  *out += "{\"index\":";
  append_integer(out, choice.index);
  if (dialect == Dialect::kChat) {
    append_message(out, choice);
  } else {
    *out += ",\"text\":";
    append_json_string(out, choice.text);
  }
  append_logprobs(out,
                  dialect,
                  choice.logprobs.has_value(),
                  choice.logprobs ? std::span<const LogprobEntry>(*choice.logprobs)
                                  : std::span<const LogprobEntry>());
  append_finish(out, choice.finish, &choice.stop_reason);
  if (choice.prompt_logprobs) append_prompt_logprobs(out, *choice.prompt_logprobs);
  if (choice.show_token_ids) {
    *out += ",\"token_ids\":";
    append_ids(out, choice.token_ids);
    if (dialect == Dialect::kCompletion) {
      *out += ",\"prompt_token_ids\":";
      append_ids(out, choice.prompt_token_ids);
      *out += ",\"completion_token_ids\":";
      append_ids(out, choice.token_ids);
    }
  }
  *out += '}';
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

std::string random_request_id() { return to_hex(random_bytes(16)); }

std::string whole_answer(const AnswerHead& head,
                         std::span<const Choice> choices,
                         const Usage& usage) {
  const bool chat = head.dialect == Dialect::kChat;
  std::string out = head_fields(head, chat ? "chat.completion" : "text_completion");
  out += ",\"choices\":[";
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    append_choice(&out, head.dialect, choices[i]);
  }
  out += "],\"usage\":";
  append_usage_object(&out, usage);
  if (chat && !choices.empty() && choices[0].show_token_ids) {
    out += ",\"prompt_token_ids\":";
    append_ids(&out, choices[0].prompt_token_ids);
  }
  out += '}';
  return out;
}

ChunkWriter::ChunkWriter(const AnswerHead& head, bool include_usage)
    : dialect_(head.dialect), include_usage_(include_usage) {
  prefix_ =
      "data: " +
      head_fields(head, dialect_ == Dialect::kChat ? "chat.completion.chunk" : "text_completion") +
      ",\"choices\":[";
}

// Behind the choices: the usage, or null where the last chunk will have it.
void ChunkWriter::append_tail(std::string* out, const Usage* usage) const {
  *out += ']';
  if (usage != nullptr) {
    *out += ",\"usage\":";
    append_usage_object(out, *usage);
  } else if (include_usage_) {
    *out += ",\"usage\":null";
  }
}

void ChunkWriter::append_opening(std::string* out,
                                 uint32_t index,
                                 const std::vector<TokenId>* prompt_token_ids,
                                 const Usage* usage) const {
  *out += prefix_;
  *out += "{\"index\":";
  append_integer(out, index);
  *out += ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"";
  if (prompt_token_ids != nullptr) {
    *out += ",\"prompt_token_ids\":";
    append_ids(out, *prompt_token_ids);
  }
  *out += "},\"logprobs\":null,\"finish_reason\":null}";
  append_tail(out, usage);
  if (prompt_token_ids != nullptr) {
    *out += ",\"prompt_token_ids\":";
    append_ids(out, *prompt_token_ids);
  }
  *out += "}\n\n";
}

void ChunkWriter::append_delta(std::string* out, const Delta& delta) const {
  *out += prefix_;
  *out += "{\"index\":";
  append_integer(out, delta.index);
  if (dialect_ == Dialect::kChat) {
    *out += ",\"delta\":{";
    const char* comma = "";
    if (!delta.reasoning.empty()) {
      *out += "\"reasoning_content\":";
      append_json_string(out, delta.reasoning);
      comma = ",";
    }
    if (!delta.text.empty()) {
      *out += comma;
      *out += "\"content\":";
      append_json_string(out, delta.text);
      comma = ",";
    }
    if (delta.show_token_ids) {
      *out += comma;
      *out += "\"completion_token_ids\":";
      append_ids(out, delta.token_ids);
    }
    *out += '}';
  } else {
    *out += ",\"text\":";
    append_json_string(out, delta.text);
  }
  append_logprobs(out, dialect_, !delta.logprobs.empty(), delta.logprobs);
  append_finish(out, delta.finish, delta.stop_reason);
  if (delta.show_token_ids) {
    *out += ",\"token_ids\":";
    append_ids(out, delta.token_ids);
    if (dialect_ == Dialect::kCompletion) {
      *out += ",\"completion_token_ids\":";
      append_ids(out, delta.token_ids);
      if (delta.prompt_token_ids != nullptr) {
        *out += ",\"prompt_token_ids\":";
        append_ids(out, *delta.prompt_token_ids);
      }
    }
  }
  *out += '}';
  append_tail(out, delta.usage);
  *out += "}\n\n";
}

void ChunkWriter::append_usage(std::string* out, const Usage& usage) const {
  *out += prefix_;
  append_tail(out, &usage);
  *out += "}\n\n";
}

void ChunkWriter::append_error(std::string* out, const ApiError& error) {
  *out += "data: ";
  *out += to_response(error).body;
  *out += "\n\n";
}

void ChunkWriter::append_done(std::string* out) { *out += "data: [DONE]\n\n"; }

}  // namespace flotilla::openai
