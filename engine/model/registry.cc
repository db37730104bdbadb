#include "engine/model/registry.h"

#include "common/check.h"
#include "engine/model/causal_lm.h"
#include "engine/model/families/families.h"

namespace flotilla {
namespace {

struct Row {
  FamilyKind family;
  StatusOr<std::unique_ptr<CausalLm>> (*make)(ModelLoader& loader);
};
constexpr Row kFamilies[] = {
    {FamilyKind::kErnie45, make_ernie4_5},
    {FamilyKind::kQwen3, make_qwen3},
    {FamilyKind::kLlama, make_llama},
};

}  // namespace

StatusOr<std::unique_ptr<CausalLm>> make_causal_lm(FamilyKind family, ModelLoader& loader) {
  for (const Row& row : kFamilies) {
    if (row.family == family) return row.make(loader);
  }
  check_failed("a family without a row in registry.cc", SourceLocation::current());
}

}  // namespace flotilla
