#include "engine/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "common/utf8.h"
#include "engine/text/model_file.h"
#include "engine/text/normalizer.h"
#include "engine/text/tokenizer_parts.h"

namespace flotilla {
namespace {

constexpr size_t kMaxTextBytes = INT32_MAX;

// One token's own bytes, by the stages that work on single tokens.
std::string own_bytes(const text::DecoderSpecs& decoder, TokenId id, std::string_view form) {
  std::string bytes(form);
  for (const text::DecoderSpec& spec : decoder) {
    if (const auto* replace = std::get_if<text::ReplaceDecoder>(&spec)) {
      const auto replaced = text::replace_all(*replace->pattern, bytes, replace->content);
      if (replaced.ok()) bytes = *replaced;
    } else if (const auto* metaspace = std::get_if<text::MetaspaceDecoder>(&spec)) {
      bytes = *text::replace_all(text::Pattern::literal(metaspace->replacement), bytes, " ");
    } else if (const auto* suffix = std::get_if<text::BpeSuffixDecoder>(&spec)) {
      bytes = *text::replace_all(text::Pattern::literal(suffix->suffix), bytes, " ");
    } else if (std::holds_alternative<text::ByteFallbackDecoder>(spec)) {
      const int byte = text::byte_token_value(bytes);
      if (byte >= 0) bytes.assign(1, static_cast<char>(byte));
    } else if (std::holds_alternative<text::ByteLevelDecoder>(spec)) {
      std::string raw;
      text::append_byte_level(&raw, bytes);
      bytes = std::move(raw);
    } else if (const auto* piece = std::get_if<text::SentencePieceDecoder>(&spec)) {
      using Kind = text::SentencePieceDecoder::Kind;
      switch (piece->kinds[static_cast<size_t>(id)]) {
        case Kind::kText:
          bytes = *text::replace_all(text::Pattern::literal("\u2581"), bytes, " ");
          break;
        case Kind::kByte:
          bytes.assign(1, static_cast<char>(text::byte_token_value(bytes)));
          break;
        case Kind::kControl:
          bytes.clear();
          break;
        case Kind::kUnknown:
          bytes = piece->unk_surface;
          break;
        case Kind::kVerbatim:
          break;
      }
    }
  }
  return bytes;
}

std::vector<TokenId> apply_template(const text::TemplateStep& step, std::vector<TokenId> ids) {
  std::vector<TokenId> out;
  for (const auto& piece : step.pieces) {
    const auto& from = piece.is_sequence ? ids : piece.ids;
    out.insert(out.end(), from.begin(), from.end());
  }
  return out;
}

}  // namespace

std::optional<std::string> TokenizerConfig::special_token(std::string_view name) const {
  for (const auto& [role, token] : special_tokens) {
    if (role == name) return token;
  }
  return std::nullopt;
}

Tokenizer::Tokenizer(std::unique_ptr<text::TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_dir) {
  const auto read = [&](const char* name) {
    return text::read_optional_model_file(model_dir + "/" + name, text::kMaxTokenizerFileBytes);
  };
  auto json = read("tokenizer.json"), config = read("tokenizer_config.json"),
       special = read("special_tokens_map.json");
  for (const auto* file : {&json, &config, &special}) {
    if (!file->ok()) return file->status();
  }
  std::unique_ptr<text::TokenizerParts> parts;
  if (!json->empty()) {
    auto parsed = text::parse_tokenizer_json(*json);
    if (!parsed.ok()) return invalid_argument(model_dir + "/" + parsed.status().message());
    parts = std::move(*parsed);
    FLOTILLA_RETURN_IF_ERROR(text::parse_tokenizer_config(*config, {}, &parts->config));
  } else {
    auto model = read("tokenizer.model"), added = read("added_tokens.json");
    if (!model.ok()) return model.status();
    if (!added.ok()) return added.status();
    if (model->empty()) {
      return not_found(model_dir +
                       " has neither tokenizer.json nor tokenizer.model; copy one from the model");
    }
    auto parsed = text::parse_sentencepiece_model(*model, *config, *added);
    if (!parsed.ok()) return invalid_argument(model_dir + "/" + parsed.status().message());
    parts = std::move(*parsed);
  }
  FLOTILLA_RETURN_IF_ERROR(text::parse_tokenizer_config({}, *special, &parts->config));
  return std::make_unique<Tokenizer>(std::move(parts));
}

StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json,
                                                          std::string_view config_json) {
  auto parts = text::parse_tokenizer_json(tokenizer_json);
  if (!parts.ok()) return parts.status();
  FLOTILLA_RETURN_IF_ERROR(text::parse_tokenizer_config(config_json, {}, &(*parts)->config));
  return std::make_unique<Tokenizer>(std::move(*parts));
}

StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::from_sentencepiece(std::string_view model,
                                                                   std::string_view config_json) {
  auto parts = text::parse_sentencepiece_model(model, config_json, {});
  if (!parts.ok()) return parts.status();
  return std::make_unique<Tokenizer>(std::move(*parts));
}

StatusOr<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                                 EncodeOptions options) const {
  if (text.size() > kMaxTextBytes) {
    return invalid_argument("the text has " + std::to_string(text.size()) +
                            " bytes; at most 2 GiB can be tokenised");
  }
  if (!is_valid_utf8(text)) return invalid_argument("the text is not valid UTF-8");
  std::vector<TokenId> ids;
  FLOTILLA_RETURN_IF_ERROR(parts_->encoder->encode(text, options.parse_special, &ids));
  if (options.add_special_tokens) {
    for (const auto& step : parts_->post_processor) ids = apply_template(step, std::move(ids));
  }
  return ids;
}

void Tokenizer::decode_token(TokenId id,
                             bool skip_special,
                             text::DecoderChain* chain,
                             std::string* out) const {
  if (skip_special && is_special(id)) return;
  if (const auto form = parts_->decoder_form(id)) chain->token(id, *form, out);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  text::DecoderChain chain(parts_->decoder);
  std::string out;
  for (const TokenId id : ids) decode_token(id, skip_special_tokens, &chain, &out);
  chain.finish(&out);
  return out;
}

std::string Tokenizer::token_bytes(TokenId id) const {
  const auto form = parts_->decoder_form(id);
  return form ? own_bytes(parts_->decoder, id, *form) : std::string();
}

std::string Tokenizer::token_text(TokenId id) const {
  const auto form = parts_->decoder_form(id);
  if (!form) return "token_id:" + std::to_string(id);
  std::string out;
  text::append_utf8_lossy(&out, own_bytes(parts_->decoder, id, *form), true);
  return out;
}

int64_t Tokenizer::vocab_size() const {
  return std::max(parts_->vocabulary.id_limit(), parts_->added.id_limit());
}

std::optional<TokenId> Tokenizer::token_id(std::string_view token) const {
  if (const auto id = parts_->added.find(token)) return id;
  return parts_->vocabulary.find(token);
}

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && static_cast<size_t>(id) < parts_->special.size() &&
         parts_->special[static_cast<size_t>(id)];
}

const TokenizerConfig& Tokenizer::config() const { return parts_->config; }

std::optional<TokenId> Tokenizer::special_id(std::string_view name) const {
  const auto token = config().special_token(name);
  return token ? token_id(*token) : std::nullopt;
}

}  // namespace flotilla
