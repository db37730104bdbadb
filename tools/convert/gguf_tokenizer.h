// tokenizer.json and tokenizer_config.json out of a GGUF file's metadata: byte-level BPE.
#pragma once

#include <string>

#include "common/status.h"
#include "tools/convert/gguf.h"

namespace flotilla::convert {

struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;  // with the chat template, if the file has one
};

// `vocab_size`: rows of the embedding; no more tokens than that. kUnimplemented for a tokenizer or
// pre-tokenizer of another kind, by name; kInvalidArgument for lists that do not fit together.
StatusOr<TokenizerFiles> tokenizer_from_gguf(const GgufContents& gguf, int64_t vocab_size);

}  // namespace flotilla::convert
