// tokenizer.json → TokenizerParts. The order of work on a text is Hugging Face tokenizers': added
// tokens of the raw text, normalizer, added tokens of the normalised text, pre-tokenizer, BPE.
#include <map>
#include <utility>

#include "common/log.h"
#include "engine/text/bpe.h"
#include "engine/text/json_components.h"
#include "engine/text/tokenizer_parts.h"

namespace flotilla::text {
namespace {

class JsonEncoder final : public Encoder {
 public:
  AddedTokenMatcher raw_tokens, normalized_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Bpe> bpe;
  bool raw_bytes = false;  // pieces go to encode_bytes()

  Status encode(std::string_view text,
                bool parse_special,
                std::vector<TokenId>* out) const override {
    std::vector<AddedTokenMatcher::Part> parts;
    raw_tokens.split(text, parse_special, &parts);
    for (const auto& part : parts) {
      if (part.id >= 0) {
        out->push_back(part.id);
        continue;
      }
      Stretch stretch{std::string(part.text), part.text.data() == text.data()};
      FLOTILLA_RETURN_IF_ERROR(normalize(normalizer, &stretch));
      FLOTILLA_RETURN_IF_ERROR(encode_normalized(std::move(stretch), parse_special, out));
    }
    return ok_status();
  }

 private:
  Status encode_normalized(Stretch stretch, bool parse_special, std::vector<TokenId>* out) const {
    if (normalized_tokens.empty()) {
      return encode_plain(std::move(stretch.text), stretch.at_start, out);
    }
    std::vector<AddedTokenMatcher::Part> parts;
    normalized_tokens.split(stretch.text, parse_special, &parts);
    for (const auto& part : parts) {
      if (part.id >= 0) {
        out->push_back(part.id);
        continue;
      }
      const bool at_start = stretch.at_start && part.text.data() == stretch.text.data();
      FLOTILLA_RETURN_IF_ERROR(encode_plain(std::string(part.text), at_start, out));
    }
    return ok_status();
  }

  Status encode_plain(std::string text, bool at_start, std::vector<TokenId>* out) const {
    auto pieces = pre_tokenize(pre_tokenizer, std::move(text), at_start);
    if (!pieces.ok()) return pieces.status();
    out->reserve(out->size() + pieces->spans.size());
    for (size_t i = 0; i < pieces->spans.size(); ++i) {
      if (raw_bytes) {
        bpe->encode_bytes((*pieces)[i], out);
      } else {
        FLOTILLA_RETURN_IF_ERROR(bpe->encode((*pieces)[i], out));
      }
    }
    return ok_status();
  }
};

Status read_vocabulary(const JsonFields& model, Vocabulary* vocabulary) {
  auto vocab = model.required_object("vocab");
  if (!vocab.ok()) return vocab.status();
  vocabulary->reserve(vocab->size());
  for (const auto [token, value] : *vocab) {
    int64_t id;
    if (value.get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxVocabularyIds) {
      return model.error("the id of token '" + std::string(token.substr(0, 64)) +
                         "' must be an integer from 0 to " + std::to_string(kMaxVocabularyIds - 1));
    }
    vocabulary->add(token, static_cast<TokenId>(id));
  }
  return ok_status();
}

// "a b" strings, or ["a", "b"] pairs in newer files.
Status read_merges(const JsonFields& model, Bpe::Merges* merges) {
  auto array = model.required_array("merges");
  if (!array.ok()) return array.status();
  for (const JsonElement element : *array) {
    std::string_view text;
    if (element.get(text) == simdjson::SUCCESS) {
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        return model.error("merge '" + std::string(text.substr(0, 64)) +
                           "' must be two tokens with one space between");
      }
      merges->emplace_back(text.substr(0, space), text.substr(space + 1));
      continue;
    }
    JsonArray pair;
    std::string_view left, right;
    if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
      return model.error("merge " + std::to_string(merges->size()) +
                         " must be a string or a pair of strings");
    }
    merges->emplace_back(left, right);
  }
  return ok_status();
}

StatusOr<std::unique_ptr<Bpe>> read_model(const JsonFields& model, Vocabulary* vocabulary) {
  auto type = model.string_or("type", "BPE");
  if (!type.ok()) return type.status();
  if (*type != "BPE") return model.error("'" + *type + "' is not supported; supported: BPE");
  if (const auto dropout = model.find("dropout")) {
    double p = 1;
    if (dropout->get(p) != simdjson::SUCCESS || p != 0) {
      return model.error("'dropout' must be null: serving needs the same ids every time");
    }
  }
  BpeOptions options;
  const auto read_string = [&](const char* key, std::string* to) -> Status {
    auto text = model.string_or(key, "");
    if (text.ok()) *to = std::move(*text);
    return text.status();
  };
  const auto read_bool = [&](const char* key, bool* to) -> Status {
    auto value = model.bool_or(key, false);
    if (value.ok()) *to = *value;
    return value.status();
  };
  FLOTILLA_RETURN_IF_ERROR(read_string("unk_token", &options.unk_token));
  FLOTILLA_RETURN_IF_ERROR(
      read_string("continuing_subword_prefix", &options.continuing_subword_prefix));
  FLOTILLA_RETURN_IF_ERROR(read_string("end_of_word_suffix", &options.end_of_word_suffix));
  FLOTILLA_RETURN_IF_ERROR(read_bool("fuse_unk", &options.fuse_unk));
  FLOTILLA_RETURN_IF_ERROR(read_bool("byte_fallback", &options.byte_fallback));
  FLOTILLA_RETURN_IF_ERROR(read_bool("ignore_merges", &options.ignore_merges));
  FLOTILLA_RETURN_IF_ERROR(read_vocabulary(model, vocabulary));
  Bpe::Merges merges;
  FLOTILLA_RETURN_IF_ERROR(read_merges(model, &merges));
  auto bpe = Bpe::make(*vocabulary, merges, std::move(options));
  if (!bpe.ok()) return model.error(bpe.status().message());
  return bpe;
}

StatusOr<AddedToken> read_added_token(const JsonFields& fields) {
  AddedToken token;
  auto content = fields.required_string("content");
  if (!content.ok()) return content.status();
  token.content = std::move(*content);
  if (token.content.size() > kMaxAddedTokenBytes) {
    return fields.error("an added token has " + std::to_string(token.content.size()) +
                        " bytes; at most " + std::to_string(kMaxAddedTokenBytes) + " are taken");
  }
  auto id = fields.required_int("id", kMaxVocabularyIds - 1);
  if (!id.ok()) return id.status();
  token.id = static_cast<TokenId>(*id);
  const std::pair<const char*, bool*> flags[] = {{"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip},
                                                 {"normalized", &token.normalized},
                                                 {"special", &token.special}};
  for (const auto& [key, to] : flags) {
    auto value = fields.bool_or(key, *to);
    if (!value.ok()) return value.status();
    *to = *value;
  }
  return token;
}

// An added token has the id of the vocabulary's token of the same string, else the next free one;
// the id in the file is only compared, as in the reference.
Status read_added_tokens(const JsonFields& root, JsonEncoder* encoder, TokenizerParts* parts) {
  if (!root.find("added_tokens")) return ok_status();
  auto array = root.required_array("added_tokens");
  if (!array.ok()) return array.status();
  auto next_id = static_cast<TokenId>(parts->vocabulary.size());
  std::map<TokenId, AddedToken> by_id;
  for (const JsonElement element : *array) {
    auto fields = JsonFields::of(element, root.path() + ": added_tokens");
    if (!fields.ok()) return fields.status();
    auto token = read_added_token(*fields);
    if (!token.ok()) return token.status();
    if (token->content.empty()) continue;
    auto id = parts->added.find(token->content);
    if (!id) id = parts->vocabulary.find(token->content);
    if (!id) id = next_id++;
    if (*id >= kMaxVocabularyIds) return fields->error("there are too many tokens");
    if (*id != token->id) {
      log_warn("added_token_id_differs",
               {{"token", token->content}, {"file", token->id}, {"used", *id}});
    }
    token->id = *id;
    parts->added.add(token->content, *id);
    by_id.insert_or_assign(*id, std::move(*token));
  }
  for (const auto& [id, token] : by_id) {
    const auto index = static_cast<size_t>(id);
    if (token.special) {
      if (index >= parts->special.size()) parts->special.resize(index + 1);
      parts->special[index] = true;
    }
    if (!token.normalized) {
      encoder->raw_tokens.add(token, token.content);
      continue;
    }
    Stretch form{token.content, false};
    FLOTILLA_RETURN_IF_ERROR(normalize(encoder->normalizer, &form));
    encoder->normalized_tokens.add(token, form.text);
    if (form.text != token.content) {
      if (index >= parts->added_forms.size()) parts->added_forms.resize(index + 1);
      parts->added_forms[index] = form.text;
    }
  }
  return ok_status();
}

}  // namespace

StatusOr<std::unique_ptr<TokenizerParts>> parse_tokenizer_json(std::string_view json) {
  simdjson::dom::parser parser;
  auto document = parse_json(&parser, json, "tokenizer.json");
  if (!document.ok()) return document.status();
  auto root = JsonFields::of(*document, "tokenizer.json");
  if (!root.ok()) return root.status();
  auto version = root->string_or("version", "1.0");
  if (!version.ok()) return version.status();
  if (*version != "1.0") return root->error("version '" + *version + "' is unknown; expected 1.0");
  for (const char* ignored : {"truncation", "padding"}) {
    if (root->find(ignored)) log_warn("tokenizer_field_ignored", {{"field", ignored}});
  }
  auto model_object = root->required_object("model");
  if (!model_object.ok()) return model_object.status();

  auto parts = std::make_unique<TokenizerParts>();
  auto encoder = std::make_unique<JsonEncoder>();
  auto normalizer = read_normalizer(root->find("normalizer"));
  if (!normalizer.ok()) return normalizer.status();
  encoder->normalizer = std::move(*normalizer);
  auto bpe = read_model(JsonFields(*model_object, "tokenizer.json: model"), &parts->vocabulary);
  if (!bpe.ok()) return bpe.status();
  encoder->bpe = std::move(*bpe);
  auto pre_tokenizer = read_pre_tokenizer(
      root->find("pre_tokenizer"), encoder->bpe->can_encode_bytes(), &encoder->raw_bytes);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  encoder->pre_tokenizer = std::move(*pre_tokenizer);
  if (encoder->raw_bytes) encoder->bpe->prepare_bytes();
  FLOTILLA_RETURN_IF_ERROR(read_added_tokens(*root, encoder.get(), parts.get()));
  auto post_processor = read_post_processor(root->find("post_processor"));
  if (!post_processor.ok()) return post_processor.status();
  parts->post_processor = std::move(*post_processor);
  auto decoder = read_decoder(root->find("decoder"));
  if (!decoder.ok()) return decoder.status();
  parts->decoder = std::move(*decoder);
  parts->encoder = std::move(encoder);
  return parts;
}

}  // namespace flotilla::text
