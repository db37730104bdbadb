#include "engine/model/checkpoint.h"

#include <simdjson.h>

#include <atomic>
#include <set>

#include "common/fd.h"

namespace flotilla {
namespace {

constexpr size_t kMaxIndexBytes = 256u << 20;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// U16 is how Paddle writes BF16; I8 and U8 are how it writes F8_E4M3 (the bits, never converted).
StatusOr<DType> usable_dtype(FileDType dtype) {
  switch (dtype) {
    case FileDType::kF32:
      return DType::kF32;
    case FileDType::kF16:
      return DType::kF16;
    case FileDType::kBf16:
    case FileDType::kU16:
      return DType::kBf16;
    case FileDType::kF8E4M3:
    case FileDType::kI8:
    case FileDType::kU8:
      return DType::kF8E4M3;
    default:
      return invalid_argument("type " + std::string(file_dtype_name(dtype)));
  }
}

class Checkpoint final : public TensorSource {
 public:
  static StatusOr<std::unique_ptr<TensorSource>> open(const std::string& dir);

  bool has(std::string_view name) const override { return tensors_.contains(std::string(name)); }

  StatusOr<DType> dtype(const std::string& name) const override {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) return not_found("tensor '" + name + "'");
    return usable_dtype(it->second.dtype);
  }

  StatusOr<HostTensor> claim(const std::string& name, const std::vector<int64_t>& shape) override {
    StatusOr<const FileTensor*> found = check_claim(name, shape);
    if (!found.ok()) return found.status();
    const FileTensor& tensor = **found;
    bytes_read_ += tensor.bytes;
    HostTensor host;
    host.view.data = const_cast<std::byte*>(tensor.data);
    host.view.dtype = usable_dtype(tensor.dtype).value();
    host.view.ndim = static_cast<int>(std::max<size_t>(1, shape.size()));
    host.view.shape[0] = 1;
    for (size_t i = 0; i < shape.size(); ++i) host.view.shape[i] = shape[i];
    host.view.row_stride = host.view.cols();
    return host;
  }

  Status claim_unread(const std::string& name, const std::vector<int64_t>& shape) override {
    return check_claim(name, shape).status();
  }

  void ignore_prefix(std::string_view prefix) override {
    MutexLock lock(mutex_);
    for (auto it = tensors_.lower_bound(std::string(prefix));
         it != tensors_.end() && it->first.starts_with(prefix);
         ++it) {
      claimed_.insert(it->first);
    }
  }

  Status check_all_claimed() const override {
    MutexLock lock(mutex_);
    std::string names;
    size_t count = 0;
    for (const auto& [name, tensor] : tensors_) {
      if (claimed_.contains(name)) continue;
      if (++count <= 3) names += (count > 1 ? ", " : "") + name;
    }
    if (count == 0) return ok_status();
    return invalid_argument(dir_ + ": " + std::to_string(count) +
                            " tensors are not part of the model that config.json describes: " +
                            names + (count > 3 ? ", …" : ""));
  }

  uint64_t bytes_read() const override { return bytes_read_.load(std::memory_order_relaxed); }

  std::string digest_material() const override {
    std::string material;
    for (const auto& [name, file] : files_) {
      material += name + '\0' + std::to_string(file->file_bytes()) + '\0';
      material += file->header_bytes();
    }
    return material;
  }

 private:
  explicit Checkpoint(std::string dir) : dir_(std::move(dir)) {}

  Status add_file(const std::string& name) {
    StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::open(dir_ + "/" + name);
    if (!file.ok()) return file.status();
    for (const auto& [tensor_name, tensor] : (*file)->tensors()) {
      const auto [it, added] = tensors_.emplace(tensor_name, tensor);
      if (!added) {
        return invalid_argument(dir_ + ": tensor '" + tensor_name + "' is in more than one file");
      }
    }
    files_.emplace(name, std::move(*file));
    return ok_status();
  }

  StatusOr<const FileTensor*> check_claim(const std::string& name,
                                          const std::vector<int64_t>& shape) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) {
      return invalid_argument(dir_ + ": tensor '" + name + "' " + shape_text(shape) +
                              " is missing");
    }
    const FileTensor& tensor = it->second;
    if (tensor.shape != shape) {
      return invalid_argument(dir_ + ": tensor '" + name + "' has shape " +
                              shape_text(tensor.shape) + ", config.json asks for " +
                              shape_text(shape));
    }
    if (!usable_dtype(tensor.dtype).ok()) {
      return invalid_argument(
          dir_ + ": tensor '" + name + "' has type " + std::string(file_dtype_name(tensor.dtype)) +
          ", expected one of F32, F16, BF16, U16 (as BF16), F8_E4M3, I8, U8 (as F8_E4M3)");
    }
    MutexLock lock(mutex_);
    claimed_.insert(name);
    return &tensor;
  }

  const std::string dir_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;  // by name
  std::map<std::string, FileTensor> tensors_;
  std::atomic<uint64_t> bytes_read_ = 0;
  mutable Mutex mutex_;
  std::set<std::string> claimed_ GUARDED_BY(mutex_);
};

StatusOr<std::unique_ptr<TensorSource>> Checkpoint::open(const std::string& dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(dir));
  const std::string index_path = dir + "/model.safetensors.index.json";
  StatusOr<std::string> index = read_file(index_path, kMaxIndexBytes);
  if (!index.ok()) {
    if (index.status().code() != StatusCode::kNotFound) return index.status();
    const Status status = checkpoint->add_file("model.safetensors");
    if (status.code() == StatusCode::kNotFound) {
      return not_found(dir + " holds neither model.safetensors nor model.safetensors.index.json");
    }
    if (!status.ok()) return status;
    return std::unique_ptr<TensorSource>(std::move(checkpoint));
  }

  simdjson::dom::parser parser;
  simdjson::dom::object map;
  if (parser.parse(simdjson::padded_string(*index))["weight_map"].get(map)) {
    return invalid_argument(index_path + ": no object 'weight_map'");
  }
  std::map<std::string, std::string> shard_of;
  std::set<std::string> shards;
  for (const auto [tensor, shard_value] : map) {
    std::string_view shard;
    if (shard_value.get(shard)) {
      return invalid_argument(index_path + ": the file of tensor '" + std::string(tensor) +
                              "' is no string");
    }
    if (shard.empty() || shard.find('/') != shard.npos || shard.find("..") != shard.npos) {
      return invalid_argument(index_path + ": '" + std::string(shard) + "' is no plain file name");
    }
    if (!shard_of.emplace(tensor, shard).second) {
      return invalid_argument(index_path + ": tensor '" + std::string(tensor) + "' appears twice");
    }
    shards.emplace(shard);
  }
  for (const std::string& shard : shards) {
    const Status status = checkpoint->add_file(shard);
    if (status.code() == StatusCode::kNotFound) {
      return not_found(index_path + " names the shard " + shard +
                       ", which is missing: " + status.message());
    }
    if (!status.ok()) return status;
  }
  for (const auto& [tensor, shard] : shard_of) {
    if (!checkpoint->files_.at(shard)->tensors().contains(tensor)) {
      return invalid_argument(index_path + ": tensor '" + tensor + "' is not in " + shard +
                              ", where the index says");
    }
  }
  for (const auto& [name, file] : checkpoint->files_) {
    for (const auto& [tensor, unused] : file->tensors()) {
      if (!shard_of.contains(tensor)) {
        return invalid_argument(index_path + ": " + name + " holds tensor '" + tensor +
                                "', which the index does not name");
      }
    }
  }
  return std::unique_ptr<TensorSource>(std::move(checkpoint));
}

uint64_t mix(uint64_t x) {  // SplitMix64 (Steele et al., OOPSLA'14)
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

class DummySource final : public TensorSource {
 public:
  explicit DummySource(uint64_t seed) : seed_(seed) {}

  // A dummy checkpoint is in the plain layout: separate, unquantised tensors.
  bool has(std::string_view name) const override {
    return name.find("weight_scale") == name.npos && name.find("quant_weight") == name.npos &&
           name.find("qkv_proj") == name.npos && name.find("up_gate_proj") == name.npos &&
           name.find("gate_up_proj") == name.npos && !name.starts_with("ernie.");
  }
  StatusOr<DType> dtype(const std::string&) const override { return DType::kBf16; }

  StatusOr<HostTensor> claim(const std::string& name, const std::vector<int64_t>& shape) override {
    int64_t elements = 1;
    for (const int64_t n : shape) elements *= n;
    auto values = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(elements) * 2);
    auto* out = reinterpret_cast<uint16_t*>(values->data());
    const bool norm = name.find("norm") != name.npos;
    const bool bias = name.find("bias") != name.npos;
    uint64_t state = mix(seed_ ^ std::hash<std::string>{}(name));
    for (int64_t i = 0; i < elements; ++i) {
      if (norm || bias) {
        out[i] = f32_to_bf16(norm ? 1.0f : 0.0f);
        continue;
      }
      // The sum of eight uniform bytes is close enough to a normal: mean 1020, variance 8 · (256² −
      // 1) / 12.
      state = mix(state + static_cast<uint64_t>(i));
      int sum = 0;
      for (uint64_t bits = state; bits != 0; bits >>= 8) sum += static_cast<int>(bits & 255);
      out[i] = f32_to_bf16(static_cast<float>(sum - 1020) * (0.02f / 209.03f));
    }
    bytes_read_ += values->size();
    HostTensor host;
    host.view.data = values->data();
    host.view.dtype = DType::kBf16;
    host.view.ndim = static_cast<int>(std::max<size_t>(1, shape.size()));
    host.view.shape[0] = 1;
    for (size_t i = 0; i < shape.size(); ++i) host.view.shape[i] = shape[i];
    host.view.row_stride = host.view.cols();
    host.owned = std::move(values);
    return host;
  }

  Status claim_unread(const std::string&, const std::vector<int64_t>&) override {
    return ok_status();
  }
  void ignore_prefix(std::string_view) override {}
  Status check_all_claimed() const override { return ok_status(); }
  uint64_t bytes_read() const override { return bytes_read_; }
  std::string digest_material() const override { return "dummy " + std::to_string(seed_); }

 private:
  const uint64_t seed_;
  std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace

StatusOr<std::unique_ptr<TensorSource>> open_checkpoint(const std::string& dir) {
  return Checkpoint::open(dir);
}

std::unique_ptr<TensorSource> make_dummy_source(uint64_t seed) {
  return std::make_unique<DummySource>(seed);
}

}  // namespace flotilla
