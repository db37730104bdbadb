// What the fuzzers of engine/text run on one input. Shared by the libFuzzer targets (clang) and by
// a plain test over a small corpus with fixed seeds. A broken promise ends in check(); anything
// else is the sanitizers' to find.
#pragma once

#include <cstdint>
#include <span>

namespace flotilla::fuzz {

// A tokenizer.json, then a NUL, then a text: loads, encodes, decodes.
void tokenizer_json(std::span<const uint8_t> data);
// A chat template: parsed, probed, rendered.
void chat_template(std::span<const uint8_t> data);
// Ids and stop strings through the incremental decoder, the stop matcher and the reasoning parser,
// in odd chunks.
void text_stream(std::span<const uint8_t> data);

}  // namespace flotilla::fuzz
