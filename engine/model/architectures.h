// The names that config.json may give, and what family each belongs to.
#pragma once

#include <string>
#include <string_view>

namespace flotilla {

enum class FamilyKind { kErnie45, kQwen3, kLlama };

struct Architecture {
  std::string_view name;  // architectures[0]
  FamilyKind family;
  bool moe;
};

// nullptr for an unknown name.
const Architecture* find_architecture(std::string_view name);
// "Ernie4_5_MoeForCausalLM, …", for messages.
std::string supported_architectures();

}  // namespace flotilla
