#include "engine/model/architectures.h"

namespace flotilla {
namespace {

constexpr Architecture kArchitectures[] = {
    {"Ernie4_5_MoeForCausalLM", FamilyKind::kErnie45, true},
    {"Ernie4_5_MoEForCausalLM", FamilyKind::kErnie45, true},
    {"Ernie4_5ForCausalLM", FamilyKind::kErnie45, false},
    {"Ernie4_5_ForCausalLM", FamilyKind::kErnie45, false},
    {"Qwen3MoeForCausalLM", FamilyKind::kQwen3, true},
    {"Qwen3ForCausalLM", FamilyKind::kQwen3, false},
    {"LlamaForCausalLM", FamilyKind::kLlama, false},
};

}  // namespace

const Architecture* find_architecture(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  return nullptr;
}

std::string supported_architectures() {
  std::string names;
  for (const Architecture& architecture : kArchitectures) {
    names += (names.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return names;
}

}  // namespace flotilla
