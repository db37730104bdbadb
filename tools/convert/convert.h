// START HERE. What `flotilla convert` does, as functions: a GGUF file, or a dense model's folder
// into its Mixture-of-Experts twin, to a folder that the engine loads.
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "kernels/dtype.h"
#include "tools/convert/moe_twin.h"

namespace flotilla::convert {

struct GgufOptions {
  DType dtype = DType::kBf16;  // or kF32
  int shards = 1;
  int threads = 1;
};
// The folder appears whole or not at all. kFailedPrecondition if it is there already.
Status convert_gguf(const std::string& gguf,
                    const std::string& out_dir,
                    const GgufOptions& options);

// What the routers of a twin do on the calibration texts.
struct TwinReport {
  int64_t tokens = 0;           // of the calibration texts
  double least_share = 0.0;     // of the routed (token, expert) pairs, over all layers and experts
  double largest_share = 0.0;   // that a token can reach; the poison pair's experts left out
  double poison_wins = 0.0;     // part of the tokens whose arg-max would be poison without the bias
  double least_weight_sum = 0;  // of the two chosen experts' probabilities before renormalising
};
StatusOr<TwinReport> convert_moe_twin(const std::string& dense_dir,
                                      const std::string& out_dir,
                                      const TwinOptions& options);

}  // namespace flotilla::convert
