// Which architectures there are: one row each.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"

namespace flotilla {

class CausalLm;
class ModelLoader;

enum class FamilyKind { kErnie45, kQwen3, kLlama };

struct FamilyEntry {
  std::string_view architecture;  // as in config.json
  FamilyKind kind;
  bool moe;
  StatusOr<std::unique_ptr<CausalLm>> (*make)(ModelLoader& loader);
};

// nullptr for an unknown name.
const FamilyEntry* find_family(std::string_view architecture);
// "Ernie4_5_MoeForCausalLM, …", for messages.
std::string supported_architectures();

}  // namespace flotilla
