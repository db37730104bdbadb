// Makes GGUF files, whole ones and damaged ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace flotilla {

class GgufBuilder {
 public:
  enum Type : uint32_t {
    kU8,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64
  };

  template <typename T>
  static std::string raw(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  static std::string text(std::string_view s) { return raw<uint64_t>(s.size()) + std::string(s); }

  // `bytes` as they stand in the file.
  GgufBuilder& entry(std::string_view key, uint32_t type, const std::string& bytes) {
    metadata_.push_back(text(key) + raw(type) + bytes);
    return *this;
  }
  GgufBuilder& string(std::string_view key, std::string_view s) {
    return entry(key, kString, text(s));
  }
  GgufBuilder& u32(std::string_view key, uint32_t v) { return entry(key, kU32, raw(v)); }
  GgufBuilder& f32(std::string_view key, float v) { return entry(key, kF32, raw(v)); }
  GgufBuilder& boolean(std::string_view key, bool v) { return entry(key, kBool, raw<uint8_t>(v)); }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = raw<uint32_t>(kString) + raw<uint64_t>(values.size());
    for (const std::string& s : values) bytes += text(s);
    return entry(key, kArray, bytes);
  }
  GgufBuilder& i32s(std::string_view key, const std::vector<int32_t>& values) {
    std::string bytes = raw<uint32_t>(kI32) + raw<uint64_t>(values.size());
    for (const int32_t v : values) bytes += raw(v);
    return entry(key, kArray, bytes);
  }

  struct Tensor {
    std::string name;
    std::vector<uint64_t> ne;  // innermost first
    uint32_t type;
    std::string data;
  };
  GgufBuilder& tensor(Tensor t) {
    tensors_.push_back(std::move(t));
    return *this;
  }
  GgufBuilder& f32_tensor(std::string name,
                          std::vector<uint64_t> ne,
                          const std::vector<float>& values) {
    return tensor({std::move(name),
                   std::move(ne),
                   0,
                   {reinterpret_cast<const char*>(values.data()), values.size() * 4}});
  }
  GgufBuilder& remove_tensor(std::string_view name) {
    std::erase_if(tensors_, [&](const Tensor& t) { return t.name == name; });
    return *this;
  }
  GgufBuilder& remove_entry(std::string_view key) {
    std::erase_if(metadata_, [&](const std::string& m) { return m.starts_with(text(key)); });
    return *this;
  }

  std::string build(uint32_t version = 3, size_t alignment = 32) const {
    std::string file =
        "GGUF" + raw(version) + raw<uint64_t>(tensors_.size()) + raw<uint64_t>(metadata_.size());
    for (const std::string& m : metadata_) file += m;
    std::string data;
    for (const Tensor& t : tensors_) {
      file += text(t.name) + raw(static_cast<uint32_t>(t.ne.size()));
      for (const uint64_t n : t.ne) file += raw(n);
      file += raw(t.type) + raw<uint64_t>(data.size());
      data += t.data;
      data.resize((data.size() + alignment - 1) / alignment * alignment);
    }
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data;
  }

 private:
  std::vector<std::string> metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace flotilla
