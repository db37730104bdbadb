// What enters and leaves the FFNs of a dense model on a few built-in texts: routers are fitted to
// it.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "engine/request.h"

namespace flotilla::convert {

// Of one layer, one row per calibration token.
struct FfnActivations {
  std::vector<float> in;   // [T, C]: behind the norm, as router and experts see it
  std::vector<float> out;  // [T, C]: what the FFN adds to the residual stream
};

// The texts' ids: conversations by the model's chat template and plain text, by its tokenizer. A
// model without a tokenizer gets fixed random ids.
StatusOr<std::vector<std::vector<TokenId>>> calibration_prompts(const std::string& model_dir,
                                                                int64_t vocab_size);

// Runs the dense Llama model in `model_dir` over `prompts`, each from position 0, in F32. The
// result, [layers], is the same on every CPU with AVX2 and for any number of threads.
StatusOr<std::vector<FfnActivations>> run_calibration(
    const std::string& model_dir, const std::vector<std::vector<TokenId>>& prompts, int threads);

}  // namespace flotilla::convert
