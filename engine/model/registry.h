// Which family builds which architecture: one row each.
#pragma once

#include <memory>

#include "common/status.h"
#include "engine/model/architectures.h"

namespace flotilla {

class CausalLm;
class ModelLoader;

// Claims and loads the tensors of the model that the loader's configuration describes.
StatusOr<std::unique_ptr<CausalLm>> make_causal_lm(FamilyKind family, ModelLoader& loader);

}  // namespace flotilla
