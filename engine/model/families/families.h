// The factories that registry.cc lists.
#pragma once

#include <memory>

#include "common/status.h"

namespace flotilla {

class CausalLm;
class ModelLoader;

StatusOr<std::unique_ptr<CausalLm>> make_ernie4_5(ModelLoader& loader);
StatusOr<std::unique_ptr<CausalLm>> make_qwen3(ModelLoader& loader);
StatusOr<std::unique_ptr<CausalLm>> make_llama(ModelLoader& loader);

}  // namespace flotilla
