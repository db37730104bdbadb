// A GGUF file's bytes through everything that `flotilla convert` does with them, but for writing.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/check.h"
#include "engine/model/config.h"
#include "tools/convert/gguf.h"
#include "tools/convert/gguf_llama.h"
#include "tools/convert/gguf_tokenizer.h"

using namespace flotilla;
using namespace flotilla::convert;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const StatusOr<GgufContents> gguf = parse_gguf(bytes);
  if (!gguf.ok()) {
    check(!gguf.status().message().empty(), "an error says what is wrong");
    return 0;
  }
  for (const auto& [name, tensor] : gguf->tensors) {
    check(tensor.data >= bytes.data() && tensor.bytes <= bytes.size() &&
              tensor.data + tensor.bytes <= bytes.data() + bytes.size(),
          "a tensor lies in the file");
  }
  const StatusOr<TokenizerFiles> tokenizer = tokenizer_from_gguf(*gguf, 1 << 20);
  check(tokenizer.ok() || !tokenizer.status().message().empty(), "an error says what is wrong");
  const StatusOr<LlamaFiles> llama = llama_from_gguf(*gguf, DType::kBf16);
  if (!llama.ok()) return 0;
  for (const OutputTensor& tensor : llama->tensors) {
    std::vector<float> row(static_cast<size_t>(tensor.cols()));
    for (int64_t r = 0; r < tensor.rows(); ++r) tensor.fill(r, 1, row.data());
  }
  const StatusOr<ModelConfig> config = parse_model_config(llama->config_json);
  check(config.ok() || !config.status().message().empty(), "an error says what is wrong");
  return 0;
}
