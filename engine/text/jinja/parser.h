// Template text → tree, by Jinja's grammar as transformers has it set up: its core, `break` and
// `continue`, and transformers' `generation` block. What has no meaning here (include, import,
// extends, block, autoescape) is refused by name.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "common/status.h"
#include "engine/text/jinja/nodes.h"

namespace flotilla::text::jinja {

inline constexpr size_t kMaxTemplateBytes = 1 << 20;

struct ParsedTemplate {
  NodePtr root;
  std::set<std::string> variables;  // every name that is read somewhere
};

// kInvalidArgument: "line 3: unknown filter 'foo'". Nesting is bounded, time is O(n).
StatusOr<ParsedTemplate> parse_template(std::string_view source);

}  // namespace flotilla::text::jinja
