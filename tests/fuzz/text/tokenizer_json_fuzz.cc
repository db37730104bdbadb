#include "tests/fuzz/text/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  flotilla::fuzz::tokenizer_json({data, size});
  return 0;
}
