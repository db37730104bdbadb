// Writes safetensors files for tests, sound ones and others.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace flotilla {

struct RawTensor {
  std::string name;
  std::string dtype;  // as in the header: "BF16", "U16", "F32", "F8_E4M3", "I8"
  std::vector<int64_t> shape;
  std::string bytes;
};

inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string safetensors_bytes(const std::vector<RawTensor>& tensors) {
  std::string header = "{", data;
  for (const RawTensor& t : tensors) {
    if (header.size() > 1) header += ",";
    header += "\"" + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i)
      header += (i ? "," : "") + std::to_string(t.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + t.bytes.size()) + "]}";
    data += t.bytes;
  }
  return safetensors_bytes(header + "}", data);
}

// Values as the bytes of a dtype: BF16 (also called U16), F32 or F16-free types only.
inline std::string encode_values(const std::vector<float>& values, const std::string& dtype) {
  std::string bytes;
  for (const float v : values) {
    if (dtype == "F32") {
      bytes.append(reinterpret_cast<const char*>(&v), 4);
    } else {
      const uint16_t b = f32_to_bf16(v);
      bytes.append(reinterpret_cast<const char*>(&b), 2);
    }
  }
  return bytes;
}

struct TempDir {
  TempDir() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "flotilla-test-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::filesystem::path path;
};

}  // namespace flotilla
