// tokenizer.model → TokenizerParts. The SentencePiece library encodes; added tokens are found first
// and every stretch between is encoded on its own.
#include <sentencepiece_processor.h>

#include <charconv>
#include <map>
#include <utility>

#include "common/utf8.h"
#include "engine/text/json_fields.h"
#include "engine/text/piece_cache.h"
#include "engine/text/sentencepiece_proto.h"
#include "engine/text/tokenizer_parts.h"

namespace flotilla::text {
namespace {

constexpr std::string_view kLowLine = "\u2581";  // ▁

// Appended to a serialized ModelProto, this overrides its normalizer_spec (field 3): no dummy
// prefix, spaces kept.
constexpr char kPlainNormalizer[] = {0x1A, 0x04, 0x18, 0x00, 0x20, 0x00};

Status library_error(const sentencepiece::util::Status& status) {
  return invalid_argument("tokenizer.model: SentencePiece says: " + status.ToString());
}

// A BPE model whose pieces have "▁" at their front only never merges over the front of a word, so
// words can be encoded one by one and remembered. Needs the identity normalisation, which we then
// do ourselves.
bool can_encode_by_words(const SentencePieceProto& proto) {
  using Type = SentencePieceProto::PieceType;
  if (proto.model_type != 2 || !proto.charsmap.empty() || !proto.escape_whitespaces ||
      proto.treat_whitespace_as_suffix) {
    return false;
  }
  bool has_low_line = false;
  for (const auto& piece : proto.pieces) {
    if (piece.type == Type::kControl || piece.type == Type::kUnknown || piece.type == Type::kByte) {
      continue;
    }
    if (piece.type == Type::kUserDefined && (piece.text.find(' ') != std::string_view::npos ||
                                             piece.text.find(kLowLine) != std::string_view::npos)) {
      return false;
    }
    std::string_view rest = piece.text;
    while (rest.starts_with(kLowLine)) rest.remove_prefix(kLowLine.size());
    if (rest.find(kLowLine) != std::string_view::npos) return false;
    has_low_line |= piece.type == Type::kNormal && piece.text == kLowLine;
  }
  return has_low_line;
}

class SentencePieceEncoder final : public Encoder {
 public:
  AddedTokenMatcher added;

  Status load(std::string_view model, const SentencePieceProto& proto) {
    by_words_ = can_encode_by_words(proto);
    add_dummy_prefix_ = proto.add_dummy_prefix;
    remove_extra_whitespaces_ = proto.remove_extra_whitespaces;
    std::string bytes(model);
    if (by_words_) bytes.append(kPlainNormalizer, sizeof kPlainNormalizer);
    const auto status = processor_.LoadFromSerializedProto(bytes);
    return status.ok() ? ok_status() : library_error(status);
  }

  Status encode(std::string_view text,
                bool parse_special,
                std::vector<TokenId>* out) const override {
    std::vector<AddedTokenMatcher::Part> parts;
    added.split(text, parse_special, &parts);
    for (const auto& part : parts) {
      if (part.id >= 0) {
        out->push_back(part.id);
      } else if (by_words_) {
        FLOTILLA_RETURN_IF_ERROR(encode_words(normalized(part.text), out));
      } else {
        FLOTILLA_RETURN_IF_ERROR(encode_whole(part.text, out));
      }
    }
    return ok_status();
  }

 private:
  Status encode_whole(std::string_view text, std::vector<TokenId>* out) const {
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    if (!status.ok()) return library_error(status);
    out->insert(out->end(), ids.begin(), ids.end());
    return ok_status();
  }

  // What the library's normalizer makes of a text when it has no charsmap.
  std::string normalized(std::string_view text) const {
    if (remove_extra_whitespaces_) {
      while (text.starts_with(' ')) text.remove_prefix(1);
      while (text.ends_with(' ')) text.remove_suffix(1);
    }
    std::string out;
    if (text.empty()) return out;
    out.reserve(text.size() + text.size() / 2);
    if (add_dummy_prefix_) out += kLowLine;
    bool after_space = false;
    for (const char c : text) {
      if (c != ' ') {
        out += c;
      } else if (!remove_extra_whitespaces_ || !after_space) {
        out += kLowLine;
      }
      after_space = c == ' ';
    }
    // The library takes away a "▁" that was written in the text as well.
    while (remove_extra_whitespaces_ && out.ends_with(kLowLine)) {
      out.resize(out.size() - kLowLine.size());
    }
    return out;
  }

  Status encode_words(std::string_view text, std::vector<TokenId>* out) const {
    while (!text.empty()) {
      size_t end = 0;
      while (text.substr(end).starts_with(kLowLine)) end += kLowLine.size();
      end = std::min(text.find(kLowLine, end), text.size());
      FLOTILLA_RETURN_IF_ERROR(encode_word(text.substr(0, end), out));
      text.remove_prefix(end);
    }
    return ok_status();
  }

  Status encode_word(std::string_view word, std::vector<TokenId>* out) const {
    if (word.size() > PieceCache::kMaxKeyBytes) return encode_whole(word, out);
    const uint64_t hash = PieceCache::hash_of(word);
    if (cache_.lookup(word, hash, out)) return ok_status();
    const size_t before = out->size();
    FLOTILLA_RETURN_IF_ERROR(encode_whole(word, out));
    cache_.insert(word, hash, std::span(*out).subspan(before));
    return ok_status();
  }

  sentencepiece::SentencePieceProcessor processor_;
  bool by_words_ = false;
  bool add_dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
  PieceCache cache_;
};

class AddedTokens {
 public:
  Status add(AddedToken token, std::string_view path) {
    if (token.content.empty()) return ok_status();
    if (token.content.size() > kMaxAddedTokenBytes) {
      return invalid_argument(std::string(path) + ": an added token has " +
                              std::to_string(token.content.size()) + " bytes; at most " +
                              std::to_string(kMaxAddedTokenBytes) + " are taken");
    }
    by_id.emplace(token.id, std::move(token));
    return ok_status();
  }

  // "added_tokens_decoder": id → token.
  Status add_decoder(const JsonFields& config) {
    if (!config.find("added_tokens_decoder")) return ok_status();
    auto object = config.required_object("added_tokens_decoder");
    if (!object.ok()) return object.status();
    for (const auto [key, value] : *object) {
      const std::string path = config.path() + ": added_tokens_decoder." + std::string(key);
      auto fields = JsonFields::of(value, path);
      if (!fields.ok()) return fields.status();
      AddedToken token;
      token.normalized = false;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
      if (error != std::errc() || end != key.data() + key.size() || token.id < 0 ||
          token.id >= kMaxVocabularyIds) {
        return invalid_argument(path + ": '" + std::string(key) + "' is not a token id");
      }
      auto content = fields->required_string("content");
      if (!content.ok()) return content.status();
      token.content = std::move(*content);
      const std::pair<const char*, bool*> flags[] = {{"single_word", &token.single_word},
                                                     {"lstrip", &token.lstrip},
                                                     {"rstrip", &token.rstrip},
                                                     {"special", &token.special}};
      for (const auto& [name, to] : flags) {
        auto flag = fields->bool_or(name, false);
        if (!flag.ok()) return flag.status();
        *to = *flag;
      }
      FLOTILLA_RETURN_IF_ERROR(add(std::move(token), path));
    }
    return ok_status();
  }

  // added_tokens.json: string → id.
  Status add_file(std::string_view json) {
    if (json.empty()) return ok_status();
    simdjson::dom::parser parser;
    auto document = parse_json(&parser, json, "added_tokens.json");
    if (!document.ok()) return document.status();
    JsonObject object;
    if (document->get(object) != simdjson::SUCCESS) {
      return invalid_argument("added_tokens.json must be an object of token strings and ids");
    }
    for (const auto [key, value] : object) {
      int64_t id;
      if (value.get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxVocabularyIds) {
        return invalid_argument("added_tokens.json: the id of '" + std::string(key.substr(0, 64)) +
                                "' must be an integer from 0 to " +
                                std::to_string(kMaxVocabularyIds - 1));
      }
      AddedToken token;
      token.content = key;
      token.id = static_cast<TokenId>(id);
      token.normalized = false;
      FLOTILLA_RETURN_IF_ERROR(add(std::move(token), "added_tokens.json"));
    }
    return ok_status();
  }

  // Tokens that the configuration names by string alone, e.g. bos_token: pieces of the model.
  Status add_named(const TokenizerConfig& config, const Vocabulary& vocabulary) {
    std::vector<std::string> names = config.additional_special_tokens;
    for (const auto& [role, name] : config.special_tokens) names.push_back(name);
    for (const std::string& name : names) {
      bool known = false;
      for (auto& [id, token] : by_id) {
        if (token.content != name) continue;
        known = token.special = true;
      }
      const auto id = vocabulary.find(name);
      if (known || !id) continue;
      AddedToken token;
      token.content = name;
      token.id = *id;
      token.normalized = false;
      token.special = true;
      FLOTILLA_RETURN_IF_ERROR(add(std::move(token), "tokenizer_config.json"));
    }
    return ok_status();
  }

  std::map<TokenId, AddedToken> by_id;
};

SentencePieceDecoder::Kind kind_of(SentencePieceProto::PieceType type) {
  using Type = SentencePieceProto::PieceType;
  using Kind = SentencePieceDecoder::Kind;
  switch (type) {
    case Type::kControl:
      return Kind::kControl;
    case Type::kUnknown:
      return Kind::kUnknown;
    case Type::kByte:
      return Kind::kByte;
    default:
      return Kind::kText;
  }
}

// add_bos_token and add_eos_token; where they are absent, Llama's and Gemma's tokenizers begin with
// BOS.
Status read_post_processor(const JsonFields& config, TokenizerParts* parts) {
  auto tokenizer_class = config.string_or("tokenizer_class", "");
  if (!tokenizer_class.ok()) return tokenizer_class.status();
  bool begins_with_bos = false;
  for (const char* name : {"Llama", "CodeLlama", "Gemma"}) {
    begins_with_bos |= tokenizer_class->starts_with(name);
  }
  auto add_bos = config.bool_or("add_bos_token", begins_with_bos);
  auto add_eos = config.bool_or("add_eos_token", false);
  if (!add_bos.ok()) return add_bos.status();
  if (!add_eos.ok()) return add_eos.status();
  const auto id_of = [&](const char* role) -> std::vector<TokenId> {
    const auto name = parts->config.special_token(role);
    if (!name) return {};
    auto id = parts->added.find(*name);
    if (!id) id = parts->vocabulary.find(*name);
    return id ? std::vector<TokenId>{*id} : std::vector<TokenId>{};
  };
  TemplateStep step;
  if (*add_bos) step.pieces.push_back({false, id_of("bos_token")});
  step.pieces.push_back({true, {}});
  if (*add_eos) step.pieces.push_back({false, id_of("eos_token")});
  parts->post_processor.push_back(std::move(step));
  return ok_status();
}

}  // namespace

StatusOr<std::unique_ptr<TokenizerParts>> parse_sentencepiece_model(std::string_view model,
                                                                    std::string_view config_json,
                                                                    std::string_view added_json) {
  auto proto = read_sentencepiece_proto(model);
  if (!proto.ok()) return proto.status();
  if (!proto->denormalizer_charsmap.empty()) {
    return invalid_argument("tokenizer.model: a denormalizer is not supported");
  }
  auto encoder = std::make_unique<SentencePieceEncoder>();
  FLOTILLA_RETURN_IF_ERROR(encoder->load(model, *proto));

  auto parts = std::make_unique<TokenizerParts>();
  SentencePieceDecoder decoder;
  parts->vocabulary.reserve(proto->pieces.size());
  for (const auto& piece : proto->pieces) {
    if (piece.type == SentencePieceProto::PieceType::kByte && byte_token_value(piece.text) < 0) {
      return invalid_argument("tokenizer.model: the byte piece '" +
                              std::string(piece.text.substr(0, 16)) + "' is not written <0xHH>");
    }
    parts->vocabulary.add(piece.text, static_cast<TokenId>(decoder.kinds.size()));
    decoder.kinds.push_back(kind_of(piece.type));
  }
  decoder.unk_surface = proto->unk_surface;
  decoder.drop_first_space = proto->add_dummy_prefix;
  decoder.drop_all_first_spaces = proto->remove_extra_whitespaces;

  simdjson::dom::parser parser;
  auto document =
      parse_json(&parser, config_json.empty() ? "{}" : config_json, "tokenizer_config.json");
  if (!document.ok()) return document.status();
  auto config = JsonFields::of(*document, "tokenizer_config.json");
  if (!config.ok()) return config.status();
  FLOTILLA_RETURN_IF_ERROR(parse_tokenizer_config(config_json, {}, &parts->config));
  AddedTokens added;
  FLOTILLA_RETURN_IF_ERROR(added.add_decoder(*config));
  FLOTILLA_RETURN_IF_ERROR(added.add_file(added_json));
  FLOTILLA_RETURN_IF_ERROR(added.add_named(parts->config, parts->vocabulary));
  for (const auto& [id, token] : added.by_id) {
    const auto index = static_cast<size_t>(id);
    encoder->added.add(token, token.content);
    parts->added.add(token.content, id);
    if (index >= decoder.kinds.size()) decoder.kinds.resize(index + 1);
    decoder.kinds[index] = SentencePieceDecoder::Kind::kVerbatim;
    if (token.special) {
      if (index >= parts->special.size()) parts->special.resize(index + 1);
      parts->special[index] = true;
    }
  }
  FLOTILLA_RETURN_IF_ERROR(read_post_processor(*config, parts.get()));
  parts->decoder.emplace_back(std::move(decoder));
  parts->encoder = std::move(encoder);
  return parts;
}

}  // namespace flotilla::text
