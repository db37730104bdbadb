#include "engine/model/registry.h"

#include "engine/model/causal_lm.h"
#include "engine/model/families/families.h"

namespace flotilla {
namespace {

constexpr FamilyEntry kFamilies[] = {
    {"Ernie4_5_MoeForCausalLM", FamilyKind::kErnie45, true, make_ernie4_5},
    {"Ernie4_5_MoEForCausalLM", FamilyKind::kErnie45, true, make_ernie4_5},
    {"Ernie4_5ForCausalLM", FamilyKind::kErnie45, false, make_ernie4_5},
    {"Ernie4_5_ForCausalLM", FamilyKind::kErnie45, false, make_ernie4_5},
    {"Qwen3MoeForCausalLM", FamilyKind::kQwen3, true, make_qwen3},
    {"Qwen3ForCausalLM", FamilyKind::kQwen3, false, make_qwen3},
    {"LlamaForCausalLM", FamilyKind::kLlama, false, make_llama},
};

}  // namespace

const FamilyEntry* find_family(std::string_view architecture) {
  for (const FamilyEntry& family : kFamilies) {
    if (family.architecture == architecture) return &family;
  }
  return nullptr;
}

std::string supported_architectures() {
  std::string names;
  for (const FamilyEntry& family : kFamilies) {
    names += (names.empty() ? "" : ", ") + std::string(family.architecture);
  }
  return names;
}

}  // namespace flotilla
