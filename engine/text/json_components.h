// Reads the normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json. Null is an
// empty list of steps; what we lack is refused by its name.
#pragma once

#include <optional>

#include "common/status.h"
#include "engine/text/json_fields.h"
#include "engine/text/normalizer.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/tokenizer_parts.h"

namespace flotilla::text {

StatusOr<Normalizer> read_normalizer(std::optional<JsonElement> json);

// `bytes_allowed`: if the one ByteLevel step is the last, let it leave raw bytes, and say so in
// *raw_bytes.
StatusOr<PreTokenizer> read_pre_tokenizer(std::optional<JsonElement> json,
                                          bool bytes_allowed,
                                          bool* raw_bytes);

StatusOr<std::vector<TemplateStep>> read_post_processor(std::optional<JsonElement> json);

StatusOr<DecoderSpecs> read_decoder(std::optional<JsonElement> json);

}  // namespace flotilla::text
