// Bytes of a queue port's client, cut into frames and turned into requests: what the engine would
// run is within its limits.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "common/wire/frame.h"
#include "engine/dispatch/queue_messages.h"
#include "engine/scheduler/batcher.h"

using namespace flotilla;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FrameReader frames(4096);
  frames.feed({reinterpret_cast<const char*>(data), size});
  const EngineLimits limits{.max_model_len = 64, .vocab_size = 100, .max_prompt_tokens = 63};
  while (true) {
    const auto frame = frames.next();
    if (!frame.ok() || !frame->has_value()) return 0;
    wire::ToRank message;
    if (!message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())) ||
        !message.has_submit())
      continue;
    const GenerationRequest request = from_wire(message.submit(), {});
    if (!check_request(request, limits).ok()) continue;
    check(!request.prompt.empty() && request.prompt.size() + request.produced.size() <= 63,
          "it fits");
    for (const TokenId id : request.prompt) check(id >= 0 && id < 100, "ids of the vocabulary");
    for (const TokenBias& b : request.sampling.logit_bias)
      check(b.token >= 0 && b.token < 100, "ids of the vocabulary");
    check(request.sampling.temperature >= 0 && request.sampling.top_p <= 1, "sound sampling");
  }
}
