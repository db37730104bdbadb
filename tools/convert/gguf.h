// One GGUF file, mapped and checked. Nothing in it is trusted: every count, length and offset is
// held against the file's size before it is used. Source: ggml docs/gguf.md; little-endian files of
// versions 2 and 3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/status.h"

namespace flotilla::convert {

// The types that this project converts, numbered as in the file.
enum class GgmlType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBf16 = 30 };
std::string_view ggml_type_name(GgmlType type);
// A row is stored in blocks of that many values, each of that many bytes.
int64_t ggml_block_values(GgmlType type);
int64_t ggml_block_bytes(GgmlType type);

struct GgufTensor {
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // outermost first (the file has it the other way round)
  const std::byte* data = nullptr;
  uint64_t bytes = 0;

  int64_t cols() const { return shape.back(); }
  int64_t rows() const;
  const std::byte* row(int64_t i) const {
    return data + i * (cols() / ggml_block_values(type) * ggml_block_bytes(type));
  }
};

// An array of whole numbers (or truth values), read where it lies.
class GgufIntegers {
 public:
  GgufIntegers(const std::byte* data, size_t count, size_t bytes_each, bool is_signed)
      : data_(data), count_(count), bytes_each_(bytes_each), signed_(is_signed) {}
  size_t size() const { return count_; }
  // Values beyond INT64_MAX come out as INT64_MAX.
  int64_t operator[](size_t i) const;

 private:
  const std::byte* data_;
  size_t count_;
  size_t bytes_each_;
  bool signed_;
};

// Arrays of floats are checked and passed over: nothing here wants one.
struct GgufFloats {
  size_t count = 0;
};

using GgufValue = std::variant<int64_t,
                               double,
                               bool,
                               std::string_view,
                               GgufIntegers,
                               GgufFloats,
                               std::vector<std::string_view>>;

// Views into the bytes that were parsed.
struct GgufContents {
  uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::map<std::string, GgufTensor, std::less<>> tensors;
};

// kInvalidArgument for a damaged file, kUnimplemented for a tensor type or version that is known
// and not read here; both name the place.
StatusOr<GgufContents> parse_gguf(std::span<const std::byte> file);

class GgufFile {
 public:
  // As parse_gguf; errors name the path. kNotFound if there is none.
  static StatusOr<std::unique_ptr<GgufFile>> open(const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return path_; }
  const GgufContents& contents() const { return contents_; }

 private:
  GgufFile() = default;

  std::string path_;
  std::span<const std::byte> mapping_;
  GgufContents contents_;
};

// A name out of a file for a message: short, printable, quoted.
std::string shown_name(std::string_view name);

}  // namespace flotilla::convert
