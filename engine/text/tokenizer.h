// Text ↔ token ids, as the model's files define them: tokenizer.json (byte-level BPE and BPE with
// byte fallback) or tokenizer.model (SentencePiece) with its added tokens. Ids are those of Hugging
// Face tokenizers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"
#include "engine/request.h"

namespace flotilla {

struct EncodeOptions {
  // BOS and EOS as the file's post-processor (or add_bos_token, add_eos_token) says. Off for a
  // rendered chat template, which writes its own.
  bool add_special_tokens = false;
  // Off: special tokens written out in the text are encoded as the text they are.
  bool parse_special = true;
};

// What tokenizer_config.json and special_tokens_map.json say besides the encoding.
struct TokenizerConfig {
  // "bos_token", "eos_token", "pad_token", … → the token's string, in the file's order. Variables
  // of a chat template.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  std::vector<std::string> additional_special_tokens;
  int64_t model_max_length = INT64_MAX;  // tokens; INT64_MAX: not said

  std::optional<std::string> special_token(std::string_view name) const;
};

namespace text {
struct TokenizerParts;
class DecoderChain;
}  // namespace text

// Threads: every member is const and may be called from any thread.
class Tokenizer {
 public:
  // Reads tokenizer.json if it is there, else tokenizer.model. kNotFound: neither is;
  // kInvalidArgument: a file is damaged or asks for what we lack, by name.
  static StatusOr<std::unique_ptr<Tokenizer>> load(const std::string& model_dir);
  // The same from the contents of tokenizer.json and tokenizer_config.json (may be empty).
  static StatusOr<std::unique_ptr<Tokenizer>> from_json(std::string_view tokenizer_json,
                                                        std::string_view config_json = {});
  // The same from the bytes of tokenizer.model.
  static StatusOr<std::unique_ptr<Tokenizer>> from_sentencepiece(std::string_view model,
                                                                 std::string_view config_json = {});
  explicit Tokenizer(std::unique_ptr<text::TokenizerParts> parts);
  ~Tokenizer();

  // `text` must be valid UTF-8 (else kInvalidArgument) below 2 GiB. O(n log n) for any text.
  StatusOr<std::vector<TokenId>> encode(std::string_view text, EncodeOptions options = {}) const;

  // Ids without a token decode to nothing. Always valid UTF-8.
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

  // The bytes that this token adds to a text, perhaps half a character. Empty for ids without a
  // token.
  std::string token_bytes(TokenId id) const;
  // A name for log probabilities: the token's text with U+FFFD for half characters; "token_id:N"
  // for an id without a token.
  std::string token_text(TokenId id) const;

  // One more than the largest id that has a token.
  int64_t vocab_size() const;
  // Of a token as the files spell it, e.g. "<|im_end|>" or "Ġthe".
  std::optional<TokenId> token_id(std::string_view token) const;
  bool is_special(TokenId id) const;

  const TokenizerConfig& config() const;
  // nullopt if the files name no such token.
  std::optional<TokenId> bos_id() const { return special_id("bos_token"); }
  std::optional<TokenId> eos_id() const { return special_id("eos_token"); }
  std::optional<TokenId> pad_id() const { return special_id("pad_token"); }

 private:
  friend class IncrementalDecoder;
  std::optional<TokenId> special_id(std::string_view name) const;
  // Feeds one id to a chain; ids without a token, and special ones if asked, are passed over.
  void decode_token(TokenId id,
                    bool skip_special,
                    text::DecoderChain* chain,
                    std::string* out) const;

  std::unique_ptr<text::TokenizerParts> parts_;
};

}  // namespace flotilla
