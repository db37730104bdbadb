// What a loaded tokenizer consists of; filled by the loaders, used by Tokenizer alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "engine/text/added_tokens.h"
#include "engine/text/decoder.h"
#include "engine/text/tokenizer.h"
#include "engine/text/vocabulary.h"

namespace flotilla::text {

// Turns a text into ids, without BOS and EOS.
class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual Status encode(std::string_view text,
                        bool parse_special,
                        std::vector<TokenId>* out) const = 0;
};

// One step of a post-processor: ids around, or between copies of, the sequence.
struct TemplateStep {
  struct Piece {
    bool is_sequence;
    std::vector<TokenId> ids;
  };
  std::vector<Piece> pieces;
};

struct TokenizerParts {
  std::unique_ptr<Encoder> encoder;
  Vocabulary vocabulary;  // of the model
  Vocabulary added;       // ids and strings of added tokens as the files spell them
  std::vector<std::string>
      added_forms;            // by id, what a decoder sees of an added token; empty: its string
  std::vector<bool> special;  // by id
  DecoderSpecs decoder;
  std::vector<TemplateStep> post_processor;
  TokenizerConfig config;

  // What a decoder sees of an id; nullopt: no such token.
  std::optional<std::string_view> decoder_form(TokenId id) const {
    if (id >= 0 && static_cast<size_t>(id) < added_forms.size()) {
      const std::string& form = added_forms[static_cast<size_t>(id)];
      if (!form.empty()) return form;
    }
    if (const auto token = added.token(id)) return token;
    return vocabulary.token(id);
  }
};

// Largest files read, in bytes: the largest published are 20–35 MB.
inline constexpr size_t kMaxTokenizerFileBytes = 256 << 20;

StatusOr<std::unique_ptr<TokenizerParts>> parse_tokenizer_json(std::string_view json);
// `config_json`: tokenizer_config.json, for added tokens and add_bos_token; may be empty.
// `added_json`: added_tokens.json.
StatusOr<std::unique_ptr<TokenizerParts>> parse_sentencepiece_model(std::string_view model,
                                                                    std::string_view config_json,
                                                                    std::string_view added_json);
// Fills `config` from tokenizer_config.json, then what is missing from special_tokens_map.json.
// Either may be empty.
Status parse_tokenizer_config(std::string_view config_json,
                              std::string_view special_tokens_json,
                              TokenizerConfig* config);

}  // namespace flotilla::text
