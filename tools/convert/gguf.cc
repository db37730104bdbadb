#include "tools/convert/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>

#include "common/fd.h"

namespace flotilla::convert {
namespace {

static_assert(std::endian::native == std::endian::little, "values are read as they lie");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxMetadata = 100'000;
constexpr uint64_t kMaxTensors = 1'000'000;
constexpr uint64_t kMaxNameBytes = 512;
constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint32_t kMaxDimensions = 4;
constexpr int64_t kMaxAlignment = 1 << 20;

struct TypeRow {
  uint32_t type;
  std::string_view name;
  int32_t block_values;  // 0: a type that is known and not read here
  int32_t block_bytes;
};
constexpr std::array kTypes = {
    TypeRow{0, "F32", 1, 4},     TypeRow{1, "F16", 1, 2},      TypeRow{2, "Q4_0", 32, 18},
    TypeRow{3, "Q4_1", 32, 20},  TypeRow{6, "Q5_0", 0, 0},     TypeRow{7, "Q5_1", 0, 0},
    TypeRow{8, "Q8_0", 32, 34},  TypeRow{9, "Q8_1", 0, 0},     TypeRow{10, "Q2_K", 0, 0},
    TypeRow{11, "Q3_K", 0, 0},   TypeRow{12, "Q4_K", 0, 0},    TypeRow{13, "Q5_K", 0, 0},
    TypeRow{14, "Q6_K", 0, 0},   TypeRow{15, "Q8_K", 0, 0},    TypeRow{16, "IQ2_XXS", 0, 0},
    TypeRow{17, "IQ2_XS", 0, 0}, TypeRow{18, "IQ3_XXS", 0, 0}, TypeRow{19, "IQ1_S", 0, 0},
    TypeRow{20, "IQ4_NL", 0, 0}, TypeRow{21, "IQ3_S", 0, 0},   TypeRow{22, "IQ2_S", 0, 0},
    TypeRow{23, "IQ4_XS", 0, 0}, TypeRow{24, "I8", 0, 0},      TypeRow{25, "I16", 0, 0},
    TypeRow{26, "I32", 0, 0},    TypeRow{27, "I64", 0, 0},     TypeRow{28, "F64", 0, 0},
    TypeRow{29, "IQ1_M", 0, 0},  TypeRow{30, "BF16", 1, 2},    TypeRow{34, "TQ1_0", 0, 0},
    TypeRow{35, "TQ2_0", 0, 0},  TypeRow{39, "MXFP4", 0, 0},
};

const TypeRow* find_type(uint32_t type) {
  const auto row =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& r) { return r.type == type; });
  return row == kTypes.end() ? nullptr : row;
}

const TypeRow& row_of(GgmlType type) { return *find_type(static_cast<uint32_t>(type)); }

enum ValueType : uint32_t {
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

// Bytes of a number; 0 for strings, arrays and unknown types.
size_t number_bytes(uint32_t type) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool:
      return 1;
    case kU16:
    case kI16:
      return 2;
    case kU32:
    case kI32:
    case kF32:
      return 4;
    case kU64:
    case kI64:
    case kF64:
      return 8;
    default:
      return 0;
  }
}

// Takes values from the front; the first one that is cut short makes it fail for good.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool failed() const { return failed_; }
  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  template <typename T>
  T take() {
    T value{};
    if (const std::byte* from = skip(sizeof value)) std::memcpy(&value, from, sizeof value);
    return value;
  }
  std::string_view take_string(uint64_t max_bytes = std::numeric_limits<uint64_t>::max()) {
    const auto length = take<uint64_t>();
    if (length > max_bytes) failed_ = true;
    const std::byte* from = skip(length);
    return from ? std::string_view(reinterpret_cast<const char*>(from), length)
                : std::string_view();
  }
  // nullptr if there are not that many bytes.
  const std::byte* skip(uint64_t n) {
    if (failed_ || n > left()) {
      failed_ = true;
      return nullptr;
    }
    const std::byte* from = bytes_.data() + at_;
    at_ += n;
    return from;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool failed_ = false;
};

Status cut_short(const std::string& where) {
  return invalid_argument(where + ": the file ends in it, or a length in it is absurd");
}

double take_float(Cursor& in, uint32_t type) {
  return type == kF32 ? static_cast<double>(in.take<float>()) : in.take<double>();
}

StatusOr<GgufValue> take_array(Cursor& in, const std::string& where) {
  const auto type = in.take<uint32_t>();
  const auto count = in.take<uint64_t>();
  if (in.failed()) return cut_short(where);
  if (type == kString) {
    if (count > in.left() / sizeof(uint64_t)) return cut_short(where);
    std::vector<std::string_view> strings;
    strings.reserve(count);
    for (uint64_t i = 0; i < count && !in.failed(); ++i) strings.push_back(in.take_string());
    if (in.failed()) return cut_short(where);
    return GgufValue(std::move(strings));
  }
  const size_t each = number_bytes(type);
  if (each == 0) {
    return invalid_argument(where + ": an array of value type " + std::to_string(type) +
                            "; expected numbers, truth values or strings");
  }
  if (count > in.left() / each) return cut_short(where);
  const std::byte* data = in.skip(count * each);
  if (type == kF32 || type == kF64) return GgufValue(GgufFloats{count});
  const bool is_signed = type == kI8 || type == kI16 || type == kI32 || type == kI64;
  return GgufValue(GgufIntegers(data, count, each, is_signed));
}

StatusOr<GgufValue> take_value(Cursor& in, const std::string& where) {
  const auto type = in.take<uint32_t>();
  if (in.failed()) return cut_short(where);
  if (type == kArray) return take_array(in, where);
  GgufValue value;
  if (type == kString) {
    value = in.take_string();
  } else if (type == kF32 || type == kF64) {
    value = take_float(in, type);
  } else if (type == kBool) {
    value = in.take<uint8_t>() != 0;
  } else if (const size_t bytes = number_bytes(type)) {
    const bool is_signed = type == kI8 || type == kI16 || type == kI32 || type == kI64;
    const std::byte* data = in.skip(bytes);
    if (data != nullptr) value = GgufIntegers(data, 1, bytes, is_signed)[0];
  } else {
    return invalid_argument(where + ": unknown value type " + std::to_string(type));
  }
  if (in.failed()) return cut_short(where);
  return value;
}

StatusOr<int64_t> alignment_of(const GgufContents& contents) {
  const auto it = contents.metadata.find("general.alignment");
  if (it == contents.metadata.end()) return int64_t{32};
  const auto* alignment = std::get_if<int64_t>(&it->second);
  if (alignment == nullptr || *alignment < 8 || *alignment % 8 != 0 || *alignment > kMaxAlignment) {
    return invalid_argument("general.alignment is no multiple of 8 up to " +
                            std::to_string(kMaxAlignment));
  }
  return *alignment;
}

struct TensorInfo {
  std::string_view name;
  GgufTensor tensor;
  uint64_t offset = 0;  // from the data's begin
};

StatusOr<TensorInfo> take_tensor_info(Cursor& in) {
  TensorInfo info;
  info.name = in.take_string(kMaxNameBytes);
  if (in.failed()) return cut_short("a tensor's name");
  const auto bad = [&](const std::string& why) {
    return invalid_argument("tensor " + shown_name(info.name) + ": " + why);
  };
  const auto dimensions = in.take<uint32_t>();
  if (in.failed()) return cut_short("tensor " + shown_name(info.name));
  if (dimensions == 0 || dimensions > kMaxDimensions) {
    return bad(std::to_string(dimensions) + " dimensions, expected 1 to 4");
  }
  uint64_t elements = 1;
  for (uint32_t d = 0; d < dimensions; ++d) {
    const auto n = in.take<uint64_t>();
    if (in.failed()) return cut_short("tensor " + shown_name(info.name));
    if (n == 0 || n > INT64_MAX || __builtin_mul_overflow(elements, n, &elements)) {
      return bad("a dimension of " + std::to_string(n) + ", or all of them together, is absurd");
    }
    info.tensor.shape.insert(info.tensor.shape.begin(), static_cast<int64_t>(n));
  }
  const auto type = in.take<uint32_t>();
  info.offset = in.take<uint64_t>();
  if (in.failed()) return cut_short("tensor " + shown_name(info.name));
  const TypeRow* row = find_type(type);
  if (row == nullptr) return bad("unknown type " + std::to_string(type));
  if (row->block_values == 0) {
    return unimplemented("tensor " + shown_name(info.name) + " is " + std::string(row->name) +
                         "; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are read here. llama.cpp's "
                         "llama-quantize makes such a file.");
  }
  const auto block = static_cast<uint64_t>(row->block_values);
  if (static_cast<uint64_t>(info.tensor.cols()) % block != 0) {
    return bad("rows of " + std::to_string(info.tensor.cols()) + " values are no multiple of " +
               std::string(row->name) + "'s blocks of " + std::to_string(block));
  }
  if (__builtin_mul_overflow(
          elements / block, static_cast<uint64_t>(row->block_bytes), &info.tensor.bytes)) {
    return bad("its size overflows");
  }
  info.tensor.type = static_cast<GgmlType>(type);
  return info;
}

Status check_no_overlap(std::vector<TensorInfo>& infos) {
  std::sort(infos.begin(), infos.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset < b.offset;
  });
  for (size_t i = 1; i < infos.size(); ++i) {
    if (infos[i].offset - infos[i - 1].offset < infos[i - 1].tensor.bytes) {
      return invalid_argument("tensors " + shown_name(infos[i - 1].name) + " and " +
                              shown_name(infos[i].name) + " overlap");
    }
  }
  return ok_status();
}

Status take_tensors(Cursor& in,
                    uint64_t count,
                    std::span<const std::byte> file,
                    GgufContents* out) {
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < count; ++i) {
    StatusOr<TensorInfo> info = take_tensor_info(in);
    if (!info.ok()) return info.status();
    infos.push_back(std::move(*info));
  }
  const StatusOr<int64_t> found = alignment_of(*out);
  if (!found.ok()) return found.status();
  const auto alignment = static_cast<size_t>(*found);
  const size_t begin = (in.position() + alignment - 1) / alignment * alignment;
  const size_t data_bytes = file.size() > begin ? file.size() - begin : 0;
  for (TensorInfo& info : infos) {
    if (info.offset % alignment != 0) {
      return invalid_argument("tensor " + shown_name(info.name) + ": offset " +
                              std::to_string(info.offset) + " is no multiple of the alignment " +
                              std::to_string(alignment));
    }
    if (info.offset > data_bytes || info.tensor.bytes > data_bytes - info.offset) {
      return invalid_argument(
          "tensor " + shown_name(info.name) + ": " + std::to_string(info.tensor.bytes) +
          " bytes at offset " + std::to_string(info.offset) + " do not lie in the " +
          std::to_string(data_bytes) + " bytes of data (is the file cut short?)");
    }
    info.tensor.data = file.data() + begin + info.offset;
  }
  FLOTILLA_RETURN_IF_ERROR(check_no_overlap(infos));
  for (TensorInfo& info : infos) {
    if (!out->tensors.emplace(std::string(info.name), std::move(info.tensor)).second) {
      return invalid_argument("tensor " + shown_name(info.name) + " appears twice");
    }
  }
  return ok_status();
}

}  // namespace

std::string_view ggml_type_name(GgmlType type) { return row_of(type).name; }
int64_t ggml_block_values(GgmlType type) { return row_of(type).block_values; }
int64_t ggml_block_bytes(GgmlType type) { return row_of(type).block_bytes; }

int64_t GgufTensor::rows() const {
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

int64_t GgufIntegers::operator[](size_t i) const {
  uint64_t bits = 0;
  std::memcpy(&bits, data_ + i * bytes_each_, bytes_each_);
  if (!signed_) return static_cast<int64_t>(std::min<uint64_t>(bits, INT64_MAX));
  const auto unused = static_cast<int>(64 - 8 * bytes_each_);
  return static_cast<int64_t>(bits << unused) >> unused;
}

std::string shown_name(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, 80)) out += c >= ' ' && c < 127 ? c : '?';
  return out + (name.size() > 80 ? "…'" : "'");
}

StatusOr<GgufContents> parse_gguf(std::span<const std::byte> file) {
  Cursor in(file);
  if (in.take<uint32_t>() != kMagic || in.failed()) {
    return invalid_argument("no GGUF file: it does not begin with 'GGUF'");
  }
  GgufContents contents;
  contents.version = in.take<uint32_t>();
  if (contents.version != 2 && contents.version != 3) {
    const bool other_order = contents.version != 0 && (contents.version & 0xFFFF) == 0;
    return unimplemented(other_order ? "a big-endian GGUF file; little-endian ones are read here"
                                     : "GGUF version " + std::to_string(contents.version) +
                                           "; versions 2 and 3 are read here");
  }
  const auto num_tensors = in.take<uint64_t>();
  const auto num_metadata = in.take<uint64_t>();
  if (in.failed() || num_tensors > kMaxTensors || num_metadata > kMaxMetadata) {
    return invalid_argument("a count of tensors or of metadata is missing or absurd (" +
                            std::to_string(num_tensors) + ", " + std::to_string(num_metadata) +
                            ")");
  }
  for (uint64_t i = 0; i < num_metadata; ++i) {
    const std::string_view key = in.take_string(kMaxKeyBytes);
    if (in.failed()) return cut_short("the key of metadata entry " + std::to_string(i));
    StatusOr<GgufValue> value = take_value(in, "metadata " + shown_name(key));
    if (!value.ok()) return value.status();
    if (!contents.metadata.emplace(std::string(key), std::move(*value)).second) {
      return invalid_argument("metadata " + shown_name(key) + " appears twice");
    }
  }
  FLOTILLA_RETURN_IF_ERROR(take_tensors(in, num_tensors, file, &contents));
  return contents;
}

StatusOr<std::unique_ptr<GgufFile>> GgufFile::open(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    const std::string message = "cannot open " + path + ": " + std::strerror(error);
    return error == ENOENT ? not_found(message) : invalid_argument(message);
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return errno_status("fstat " + path);
  if (!S_ISREG(info.st_mode)) return invalid_argument(path + ": no regular file");
  if (info.st_size == 0) return invalid_argument(path + ": empty");
  const auto size = static_cast<size_t>(info.st_size);
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (mapping == MAP_FAILED) return errno_status("mmap " + path);
  std::unique_ptr<GgufFile> file(new GgufFile);
  file->path_ = path;
  file->mapping_ = {static_cast<const std::byte*>(mapping), size};
  StatusOr<GgufContents> contents = parse_gguf(file->mapping_);
  if (!contents.ok()) {
    return Status(contents.status().code(), path + ": " + contents.status().message());
  }
  file->contents_ = std::move(*contents);
  return file;
}

GgufFile::~GgufFile() {
  if (!mapping_.empty()) {
    ::munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
  }
}

}  // namespace flotilla::convert
