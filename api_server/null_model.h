// What --engine null serves when no --model is given: a tokenizer whose ids are bytes, and a plain chat template.
#pragma once

#include <string>

namespace flotilla {

std::string byte_tokenizer_json();
std::string plain_chat_template();
// What the engine without a model says, over and over.
std::string null_engine_text();

}  // namespace flotilla
