#include "engine/text/json_components.h"

#include <utility>

#include "common/utf8.h"

namespace flotilla::text {
namespace {

// The objects of nested Sequences in order, the steps being under `list_key`.
Status flatten(JsonElement element,
               const std::string& path,
               std::string_view list_key,
               std::vector<JsonFields>* out) {
  auto fields = JsonFields::of(element, path);
  if (!fields.ok()) return fields.status();
  auto type = fields->required_string("type");
  if (!type.ok()) return type.status();
  if (*type != "Sequence") {
    out->push_back(std::move(*fields));
    return ok_status();
  }
  auto steps = fields->required_array(list_key);
  if (!steps.ok()) return steps.status();
  size_t index = 0;
  for (const JsonElement step : *steps) {
    const std::string step_path = path + "[" + std::to_string(index++) + "]";
    FLOTILLA_RETURN_IF_ERROR(flatten(step, step_path, list_key, out));
  }
  return ok_status();
}

StatusOr<std::vector<JsonFields>> steps_of(std::optional<JsonElement> json,
                                           const std::string& name,
                                           std::string_view list_key) {
  std::vector<JsonFields> steps;
  if (json) FLOTILLA_RETURN_IF_ERROR(flatten(*json, "tokenizer.json: " + name, list_key, &steps));
  return steps;
}

Status unsupported(const JsonFields& fields, std::string_view type, std::string_view supported) {
  return fields.error("'" + std::string(type) +
                      "' is not supported; supported: " + std::string(supported));
}

// One character, as Rust's serde reads a char.
StatusOr<std::string> required_char(const JsonFields& fields, std::string_view key) {
  auto text = fields.required_string(key);
  if (!text.ok()) return text;
  if (text->empty() || utf8_char_length(*text) != text->size()) {
    return fields.error("'" + std::string(key) + "' must be one character, but is '" + *text + "'");
  }
  return text;
}

struct PatternField {
  Pattern pattern;
  std::string literal;  // empty for a Regex
};

// {"String": "…"} or {"Regex": "…"}.
StatusOr<PatternField> required_pattern(const JsonFields& fields) {
  auto object = fields.required_object("pattern");
  if (!object.ok()) return object.status();
  const JsonFields pattern(*object, fields.path() + ".pattern");
  if (pattern.find("String")) {
    auto text = pattern.required_string("String");
    if (!text.ok()) return text.status();
    return PatternField{Pattern::literal(*text), *text};
  }
  auto regex = pattern.required_string("Regex");
  if (!regex.ok()) return regex.status();
  auto compiled = Pattern::regex(*regex);
  if (!compiled.ok()) return pattern.error(compiled.status().message());
  return PatternField{std::move(*compiled), ""};
}

StatusOr<SplitBehavior> behavior_of(const JsonFields& fields, const char* fallback) {
  auto name = fallback != nullptr ? fields.string_or("behavior", fallback)
                                  : fields.required_string("behavior");
  if (!name.ok()) return name.status();
  if (*name == "Removed") return SplitBehavior::kRemoved;
  if (*name == "Isolated") return SplitBehavior::kIsolated;
  if (*name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (*name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (*name == "Contiguous") return SplitBehavior::kContiguous;
  return fields.error("behavior '" + *name +
                      "' is none of Removed, Isolated, MergedWithPrevious, MergedWithNext, "
                      "Contiguous");
}

// Both of pre-tokenizer and decoder. Older files say add_prefix_space instead of a scheme.
struct MetaspaceFields {
  std::string replacement;
  PrependScheme scheme;
  bool split;
};

StatusOr<MetaspaceFields> read_metaspace(const JsonFields& fields) {
  auto replacement = required_char(fields, "replacement");
  if (!replacement.ok()) return replacement.status();
  auto prefix = fields.bool_or("add_prefix_space", true);
  if (!prefix.ok()) return prefix.status();
  auto scheme = fields.string_or("prepend_scheme", *prefix ? "always" : "never");
  if (!scheme.ok()) return scheme.status();
  auto split = fields.bool_or("split", true);
  if (!split.ok()) return split.status();
  MetaspaceFields out{std::move(*replacement), PrependScheme::kAlways, *split};
  if (*scheme == "never") {
    out.scheme = PrependScheme::kNever;
  } else if (*scheme == "first") {
    out.scheme = PrependScheme::kFirst;
  } else if (*scheme != "always") {
    return fields.error("prepend_scheme '" + *scheme + "' is none of always, first, never");
  }
  if (!*prefix && out.scheme != PrependScheme::kNever) {
    return fields.error("add_prefix_space false contradicts prepend_scheme '" + *scheme + "'");
  }
  return out;
}

StatusOr<std::unique_ptr<NormalizerStep>> read_normalizer_step(const JsonFields& fields,
                                                               const std::string& type) {
  if (type == "NFC") return make_unicode_normalizer(NormalForm::kNfc);
  if (type == "NFD") return make_unicode_normalizer(NormalForm::kNfd);
  if (type == "NFKC") return make_unicode_normalizer(NormalForm::kNfkc);
  if (type == "NFKD") return make_unicode_normalizer(NormalForm::kNfkd);
  if (type == "Lowercase") return make_lowercase_normalizer();
  if (type == "StripAccents") return make_strip_accents_normalizer();
  if (type == "Strip") {
    auto left = fields.bool_or("strip_left", true), right = fields.bool_or("strip_right", true);
    if (!left.ok()) return left.status();
    if (!right.ok()) return right.status();
    return make_strip_normalizer(*left, *right);
  }
  if (type == "Prepend") {
    auto prefix = fields.required_string("prepend");
    if (!prefix.ok()) return prefix.status();
    return make_prepend_normalizer(std::move(*prefix));
  }
  if (type == "Replace") {
    auto pattern = required_pattern(fields);
    if (!pattern.ok()) return pattern.status();
    auto content = fields.required_string("content");
    if (!content.ok()) return content.status();
    return make_replace_normalizer(std::move(pattern->pattern), std::move(*content));
  }
  return unsupported(fields,
                     type,
                     "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, "
                     "Sequence");
}

StatusOr<std::unique_ptr<PreTokenizerStep>> read_pre_tokenizer_step(const JsonFields& fields,
                                                                    const std::string& type,
                                                                    bool raw_bytes) {
  if (type == "Split") {
    auto pattern = required_pattern(fields);
    if (!pattern.ok()) return pattern.status();
    auto behavior = behavior_of(fields, nullptr);
    if (!behavior.ok()) return behavior.status();
    auto invert = fields.bool_or("invert", false);
    if (!invert.ok()) return invert.status();
    return make_split(std::move(pattern->pattern), *behavior, *invert);
  }
  if (type == "ByteLevel") {
    auto prefix = fields.bool_or("add_prefix_space", true);
    if (!prefix.ok()) return prefix.status();
    auto use_regex = fields.bool_or("use_regex", true);
    if (!use_regex.ok()) return use_regex.status();
    return make_byte_level(*prefix, *use_regex, !raw_bytes);
  }
  if (type == "Digits") {
    auto individual = fields.bool_or("individual_digits", false);
    if (!individual.ok()) return individual.status();
    return make_digits(*individual);
  }
  if (type == "Metaspace") {
    auto metaspace = read_metaspace(fields);
    if (!metaspace.ok()) return metaspace.status();
    return make_metaspace(std::move(metaspace->replacement), metaspace->scheme, metaspace->split);
  }
  if (type == "Whitespace") return make_whitespace();
  if (type == "WhitespaceSplit") return make_whitespace_split();
  if (type == "Punctuation") {
    auto behavior = behavior_of(fields, "Isolated");
    if (!behavior.ok()) return behavior.status();
    return make_punctuation(*behavior);
  }
  return unsupported(fields,
                     type,
                     "Split, ByteLevel, Digits, Metaspace, Whitespace, WhitespaceSplit, "
                     "Punctuation, Sequence");
}

StatusOr<TemplateStep> read_template(const JsonFields& fields) {
  auto single = fields.required_array("single");
  if (!single.ok()) return single.status();
  auto tokens = fields.required_object("special_tokens");
  if (!tokens.ok()) return tokens.status();
  const JsonFields special(*tokens, fields.path() + ".special_tokens");
  TemplateStep step;
  for (const JsonElement element : *single) {
    auto piece = JsonFields::of(element, fields.path() + ".single");
    if (!piece.ok()) return piece.status();
    if (piece->find("Sequence")) {
      step.pieces.push_back({true, {}});
      continue;
    }
    auto token = piece->required_object("SpecialToken");
    if (!token.ok()) return token.status();
    auto name = JsonFields(*token, piece->path()).required_string("id");
    if (!name.ok()) return name.status();
    auto entry = special.required_object(*name);
    if (!entry.ok()) return entry.status();
    auto ids = JsonFields(*entry, special.path() + "." + *name).required_array("ids");
    if (!ids.ok()) return ids.status();
    TemplateStep::Piece out{false, {}};
    for (const JsonElement id : *ids) {
      int64_t value;
      if (id.get(value) != simdjson::SUCCESS || value < 0 || value >= kMaxVocabularyIds) {
        return special.error("an id of '" + *name + "' is not a token id");
      }
      out.ids.push_back(static_cast<TokenId>(value));
    }
    step.pieces.push_back(std::move(out));
  }
  return step;
}

StatusOr<DecoderSpec> read_decoder_step(const JsonFields& fields, const std::string& type) {
  if (type == "ByteLevel") return DecoderSpec(ByteLevelDecoder{});
  if (type == "ByteFallback") return DecoderSpec(ByteFallbackDecoder{});
  if (type == "Fuse") return DecoderSpec(FuseDecoder{});
  if (type == "BPEDecoder") {
    auto suffix = fields.string_or("suffix", "</w>");
    if (!suffix.ok()) return suffix.status();
    return DecoderSpec(BpeSuffixDecoder{std::move(*suffix)});
  }
  if (type == "Strip") {
    auto content = required_char(fields, "content");
    if (!content.ok()) return content.status();
    auto start = fields.required_int("start", 1 << 20), stop = fields.required_int("stop", 1 << 20);
    if (!start.ok()) return start.status();
    if (!stop.ok()) return stop.status();
    return DecoderSpec(
        StripDecoder{std::move(*content), static_cast<size_t>(*start), static_cast<size_t>(*stop)});
  }
  if (type == "Metaspace") {
    auto metaspace = read_metaspace(fields);
    if (!metaspace.ok()) return metaspace.status();
    return DecoderSpec(MetaspaceDecoder{std::move(metaspace->replacement),
                                        metaspace->scheme != PrependScheme::kNever});
  }
  if (type == "Replace") {
    auto pattern = required_pattern(fields);
    if (!pattern.ok()) return pattern.status();
    auto content = fields.required_string("content");
    if (!content.ok()) return content.status();
    return DecoderSpec(ReplaceDecoder{std::make_shared<Pattern>(std::move(pattern->pattern)),
                                      std::move(pattern->literal),
                                      std::move(*content)});
  }
  return unsupported(fields,
                     type,
                     "ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder, "
                     "Sequence");
}

}  // namespace

StatusOr<Normalizer> read_normalizer(std::optional<JsonElement> json) {
  auto steps = steps_of(json, "normalizer", "normalizers");
  if (!steps.ok()) return steps.status();
  Normalizer out;
  for (const JsonFields& fields : *steps) {
    auto step = read_normalizer_step(fields, *fields.required_string("type"));
    if (!step.ok()) return step.status();
    out.push_back(std::move(*step));
  }
  return out;
}

StatusOr<PreTokenizer> read_pre_tokenizer(std::optional<JsonElement> json,
                                          bool bytes_allowed,
                                          bool* raw_bytes) {
  auto steps = steps_of(json, "pre_tokenizer", "pretokenizers");
  if (!steps.ok()) return steps.status();
  size_t byte_levels = 0;
  for (const JsonFields& fields : *steps)
    byte_levels += *fields.required_string("type") == "ByteLevel";
  *raw_bytes =
      bytes_allowed && byte_levels == 1 && *steps->back().required_string("type") == "ByteLevel";
  PreTokenizer out;
  for (const JsonFields& fields : *steps) {
    auto step = read_pre_tokenizer_step(fields, *fields.required_string("type"), *raw_bytes);
    if (!step.ok()) return step.status();
    out.push_back(std::move(*step));
  }
  return out;
}

StatusOr<std::vector<TemplateStep>> read_post_processor(std::optional<JsonElement> json) {
  auto steps = steps_of(json, "post_processor", "processors");
  if (!steps.ok()) return steps.status();
  std::vector<TemplateStep> out;
  for (const JsonFields& fields : *steps) {
    const std::string type = *fields.required_string("type");
    if (type == "ByteLevel") continue;  // moves offsets only
    if (type != "TemplateProcessing") {
      return unsupported(fields, type, "TemplateProcessing, ByteLevel, Sequence");
    }
    auto step = read_template(fields);
    if (!step.ok()) return step.status();
    out.push_back(std::move(*step));
  }
  return out;
}

StatusOr<DecoderSpecs> read_decoder(std::optional<JsonElement> json) {
  if (!json) return DecoderSpecs{JoinDecoder{}};
  auto steps = steps_of(json, "decoder", "decoders");
  if (!steps.ok()) return steps.status();
  DecoderSpecs out;
  for (const JsonFields& fields : *steps) {
    auto step = read_decoder_step(fields, *fields.required_string("type"));
    if (!step.ok()) return step.status();
    out.push_back(std::move(*step));
  }
  if (const Status status = check_decoder(out); !status.ok()) {
    return invalid_argument("tokenizer.json: " + status.message());
  }
  return out;
}

}  // namespace flotilla::text
