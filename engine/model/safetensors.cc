#include "engine/model/safetensors.h"

#include <fcntl.h>
#include <simdjson.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "common/fd.h"

namespace flotilla {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNameBytes = 512;
constexpr size_t kMaxDimensions = 8;

struct DTypeRow {
  FileDType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr std::array kDTypes = {
    DTypeRow{FileDType::kBool, "BOOL", 1},
    DTypeRow{FileDType::kU8, "U8", 1},
    DTypeRow{FileDType::kI8, "I8", 1},
    DTypeRow{FileDType::kF8E4M3, "F8_E4M3", 1},
    DTypeRow{FileDType::kF8E5M2, "F8_E5M2", 1},
    DTypeRow{FileDType::kF8E8M0, "F8_E8M0", 1},
    DTypeRow{FileDType::kI16, "I16", 2},
    DTypeRow{FileDType::kU16, "U16", 2},
    DTypeRow{FileDType::kF16, "F16", 2},
    DTypeRow{FileDType::kBf16, "BF16", 2},
    DTypeRow{FileDType::kI32, "I32", 4},
    DTypeRow{FileDType::kU32, "U32", 4},
    DTypeRow{FileDType::kF32, "F32", 4},
    DTypeRow{FileDType::kI64, "I64", 8},
    DTypeRow{FileDType::kU64, "U64", 8},
    DTypeRow{FileDType::kF64, "F64", 8},
};

// Names from a file go into messages: keep them short and printable.
std::string shown(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, 80)) out += c >= ' ' && c < 127 ? c : '?';
  return out + (name.size() > 80 ? "…'" : "'");
}

StatusOr<FileTensor> parse_tensor(std::string_view name,
                                  simdjson::dom::object fields,
                                  uint64_t data_bytes) {
  const auto bad = [&](const std::string& why) {
    return invalid_argument("tensor " + shown(name) + ": " + why);
  };
  FileTensor tensor;
  std::string_view dtype_text;
  simdjson::dom::array shape, offsets;
  if (fields["dtype"].get(dtype_text)) return bad("no dtype");
  if (fields["shape"].get(shape)) return bad("no shape");
  if (fields["data_offsets"].get(offsets)) return bad("no data_offsets");
  const auto row = std::find_if(
      kDTypes.begin(), kDTypes.end(), [&](const DTypeRow& r) { return r.name == dtype_text; });
  if (row == kDTypes.end()) return bad("unknown dtype " + shown(dtype_text));
  tensor.dtype = row->dtype;

  uint64_t elements = 1;
  for (const simdjson::dom::element dim : shape) {
    uint64_t n;
    if (dim.get(n) || n > INT64_MAX) return bad("a dimension is no whole number ≥ 0");
    if (tensor.shape.size() == kMaxDimensions) return bad("more than 8 dimensions");
    if (__builtin_mul_overflow(elements, n, &elements)) return bad("the shape overflows");
    tensor.shape.push_back(static_cast<int64_t>(n));
  }
  std::array<uint64_t, 2> range{};
  if (offsets.size() != 2 || offsets.at(0).get(range[0]) || offsets.at(1).get(range[1])) {
    return bad("data_offsets are not two whole numbers ≥ 0");
  }
  if (range[0] > range[1] || range[1] > data_bytes) {
    return bad("data_offsets [" + std::to_string(range[0]) + ", " + std::to_string(range[1]) +
               "] do not lie in the " + std::to_string(data_bytes) + " bytes of data");
  }
  uint64_t wanted;
  if (__builtin_mul_overflow(elements, row->bytes, &wanted)) return bad("the shape overflows");
  tensor.bytes = range[1] - range[0];
  if (tensor.bytes != wanted) {
    return bad("has " + std::to_string(tensor.bytes) + " bytes, its shape and type need " +
               std::to_string(wanted));
  }
  tensor.file_offset = range[0];
  return tensor;
}

}  // namespace

std::string_view file_dtype_name(FileDType dtype) {
  return kDTypes[static_cast<size_t>(dtype)].name;
}
size_t file_dtype_bytes(FileDType dtype) { return kDTypes[static_cast<size_t>(dtype)].bytes; }

StatusOr<std::map<std::string, FileTensor>> parse_safetensors_header(std::string_view header,
                                                                     uint64_t data_bytes) {
  if (header.empty() || header.front() != '{') {
    return invalid_argument("the header does not begin with '{'");
  }
  simdjson::dom::parser parser;
  if (parser.allocate(header.size() + 1, 4)) return resource_exhausted("no memory for the header");
  simdjson::dom::object root;
  const simdjson::padded_string text(header);
  if (const auto error = parser.parse(text).get(root)) {
    return invalid_argument(std::string("the header is no JSON object of depth ≤ 3: ") +
                            simdjson::error_message(error));
  }
  std::map<std::string, FileTensor> tensors;
  for (const auto [name, value] : root) {
    simdjson::dom::object fields;
    if (value.get(fields)) return invalid_argument("entry " + shown(name) + " is no object");
    if (name == "__metadata__") {
      for (const auto [key, text_value] : fields) {
        if (!text_value.is_string()) {
          return invalid_argument("__metadata__ " + shown(key) + " is no string");
        }
      }
      continue;
    }
    if (name.size() > kMaxNameBytes)
      return invalid_argument("tensor name " + shown(name) + " is too long");
    if (tensors.size() == kMaxTensors) return invalid_argument("more than 1,000,000 tensors");
    StatusOr<FileTensor> tensor = parse_tensor(name, fields, data_bytes);
    if (!tensor.ok()) return tensor.status();
    if (!tensors.emplace(std::string(name), std::move(*tensor)).second) {
      return invalid_argument("tensor " + shown(name) + " appears twice");
    }
  }

  std::vector<const std::pair<const std::string, FileTensor>*> in_order;
  for (const auto& entry : tensors) in_order.push_back(&entry);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.file_offset, a->second.bytes) <
           std::pair(b->second.file_offset, b->second.bytes);
  });
  uint64_t end = 0;
  for (const auto* entry : in_order) {
    if (entry->second.file_offset != end) {
      return invalid_argument("tensor " + shown(entry->first) + " begins at byte " +
                              std::to_string(entry->second.file_offset) +
                              ", the one before ends at " + std::to_string(end) +
                              ": overlap or hole");
    }
    end += entry->second.bytes;
  }
  if (end != data_bytes) {
    return invalid_argument("the tensors end at byte " + std::to_string(end) + ", the data at " +
                            std::to_string(data_bytes) +
                            " (file cut short, or something behind it)");
  }
  return tensors;
}

StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::open(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    const std::string message = "cannot open " + path + ": " + std::strerror(error);
    return error == ENOENT ? not_found(message) : invalid_argument(message);
  }
  const auto bad = [&](const std::string& why) { return invalid_argument(path + ": " + why); };
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return errno_status("fstat " + path);
  if (!S_ISREG(info.st_mode)) return bad("no regular file");
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size < 8) return bad("shorter than the 8 bytes that give the header's length");

  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->size_ = size;
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (mapping == MAP_FAILED) return errno_status("mmap " + path);
  file->mapping_ = static_cast<const std::byte*>(mapping);

  uint64_t header_bytes;
  std::memcpy(&header_bytes, mapping, 8);
  if (header_bytes > kMaxHeaderBytes) {
    return bad("header of " + std::to_string(header_bytes) + " bytes, the limit is 100,000,000");
  }
  if (header_bytes > size - 8) {
    return bad("header of " + std::to_string(header_bytes) + " bytes in a file of " +
               std::to_string(size));
  }
  file->header_size_ = header_bytes + 8;
  auto tensors =
      parse_safetensors_header(file->header_bytes().substr(8), size - file->header_size_);
  if (!tensors.ok()) return bad(tensors.status().message());
  file->tensors_ = std::move(*tensors);
  for (auto& [name, tensor] : file->tensors_) {
    tensor.file_offset += file->header_size_;
    tensor.data = file->mapping_ + tensor.file_offset;
  }
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) ::munmap(const_cast<std::byte*>(mapping_), size_);
}

std::string_view SafetensorsFile::header_bytes() const {
  return {reinterpret_cast<const char*>(mapping_), header_size_};
}

}  // namespace flotilla
