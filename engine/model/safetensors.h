// One safetensors file, mapped and checked. Nothing in the header is trusted: the format's own
// rules (no holes, no overlaps, sizes that fit type and shape, nothing behind the last tensor) are
// enforced before any tensor is handed out. Source: huggingface/safetensors, README "Format" and
// the reference reader.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flotilla {

// Types as the header names them; only some are of use to a model.
enum class FileDType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBf16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};
std::string_view file_dtype_name(FileDType dtype);
size_t file_dtype_bytes(FileDType dtype);

struct FileTensor {
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // in the mapping; no alignment promised
  uint64_t bytes = 0;
  uint64_t file_offset = 0;  // of `data`
};

// Parses what stands before the data: the JSON text `header`, for a data buffer of `data_bytes`.
// Offsets are in `file_offset`, relative to the buffer; data pointers are null. For tests and
// fuzzing besides open().
StatusOr<std::map<std::string, FileTensor>> parse_safetensors_header(std::string_view header,
                                                                     uint64_t data_bytes);

class SafetensorsFile {
 public:
  // Errors name the file and the tensor: kNotFound, or kInvalidArgument for a malformed file.
  static StatusOr<std::unique_ptr<SafetensorsFile>> open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, FileTensor>& tensors() const { return tensors_; }
  // The header's bytes, length field included: part of the model's digest.
  std::string_view header_bytes() const;
  uint64_t file_bytes() const { return size_; }

 private:
  SafetensorsFile() = default;

  std::string path_;
  const std::byte* mapping_ = nullptr;
  uint64_t size_ = 0;
  uint64_t header_size_ = 0;
  std::map<std::string, FileTensor> tensors_;
};

}  // namespace flotilla
