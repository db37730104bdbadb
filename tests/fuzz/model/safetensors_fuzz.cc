// A file's head as SafetensorsFile reads it: whatever passes lies in the data, without holes or
// overlaps.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "engine/model/safetensors.h"

using namespace flotilla;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint64_t data_bytes = data[0] | static_cast<uint64_t>(data[1]) << 8;
  const std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto tensors = parse_safetensors_header(header, data_bytes);
  if (!tensors.ok()) return 0;
  uint64_t total = 0;
  for (const auto& [name, tensor] : *tensors) {
    uint64_t bytes = file_dtype_bytes(tensor.dtype);
    for (const int64_t n : tensor.shape) bytes *= static_cast<uint64_t>(n);
    check(bytes == tensor.bytes, "a tensor has the bytes of its shape");
    check(tensor.file_offset + tensor.bytes <= data_bytes, "a tensor lies in the data");
    total += tensor.bytes;
  }
  check(total == data_bytes, "the tensors fill the data");
  return 0;
}
