#include "engine/text/incremental_decoder.h"

#include "engine/text/tokenizer_parts.h"

namespace flotilla {

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      chain_(std::make_unique<text::DecoderChain>(tokenizer.parts_->decoder)) {}
IncrementalDecoder::~IncrementalDecoder() = default;
IncrementalDecoder::IncrementalDecoder(IncrementalDecoder&&) noexcept = default;

void IncrementalDecoder::append(TokenId id, std::string* out) {
  tokenizer_->decode_token(id, skip_special_tokens_, chain_.get(), out);
}

void IncrementalDecoder::append(std::span<const TokenId> ids, std::string* out) {
  for (const TokenId id : ids) append(id, out);
}

void IncrementalDecoder::finish(std::string* out) { chain_->finish(out); }

}  // namespace flotilla
