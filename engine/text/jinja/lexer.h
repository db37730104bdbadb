// Cuts a template into tokens as Jinja does with trim_blocks and lstrip_blocks on and
// keep_trailing_newline off: white space around tags is settled here. One pass, O(n).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flotilla::text::jinja {

struct Token {
  enum class Kind {
    kData,           // text to copy
    kVariableBegin,  // {{
    kVariableEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,  // text: its value
    kInteger,
    kFloat,
    kOperator,  // text: the operator
    kEnd,
  };
  Kind kind;
  std::string text;
  int line;
};

// kInvalidArgument with the line of what is wrong.
StatusOr<std::vector<Token>> tokenize_template(std::string_view source);

}  // namespace flotilla::text::jinja
