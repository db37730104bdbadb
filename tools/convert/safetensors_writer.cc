#include "tools/convert/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <thread>

#include "common/fd.h"
#include "common/json.h"
#include "common/mutex.h"

namespace flotilla::convert {
namespace {

constexpr int64_t kChunkValues = 1 << 20;  // what one thread makes at a time

// [begin, end) of the sorted tensors: about equal bytes each, none empty.
std::vector<std::span<OutputTensor>> cut(std::vector<OutputTensor>& tensors, int shards) {
  uint64_t left = 0;
  for (const OutputTensor& t : tensors) left += t.bytes();
  std::vector<std::span<OutputTensor>> out;
  size_t begin = 0;
  for (auto s = static_cast<size_t>(shards); s > 0; --s) {
    const uint64_t wanted = (left + s - 1) / s;
    uint64_t bytes = 0;
    size_t end = begin;
    while (end + s - 1 < tensors.size() && (end == begin || bytes < wanted || s == 1)) {
      bytes += tensors[end++].bytes();
    }
    out.emplace_back(tensors.data() + begin, end - begin);
    left -= bytes;
    begin = end;
  }
  return out;
}

std::string shard_name(size_t shard, size_t shards) {
  if (shards == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return name;
}

// Length field and JSON, padded so that the data begins at a multiple of 8.
std::string header_of(std::span<const OutputTensor> tensors) {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.key("__metadata__");
  w.begin_object();
  w.field("format", "pt");
  w.end_object();
  uint64_t at = 0;
  for (const OutputTensor& t : tensors) {
    w.key(t.name);
    w.begin_object();
    w.field("dtype", dtype_name(t.dtype));
    w.key("shape");
    w.begin_array();
    for (const int64_t n : t.shape) w.value(n);
    w.end_array();
    w.key("data_offsets");
    w.begin_array();
    w.value(at);
    w.value(at += t.bytes());
    w.end_array();
    w.end_object();
  }
  w.end_object();
  json.append((8 - json.size() % 8) % 8, ' ');
  const uint64_t length = json.size();
  std::string header(reinterpret_cast<const char*>(&length), sizeof length);
  return header + json;
}

Status write_at(int fd, std::span<const std::byte> data, uint64_t offset, const std::string& path) {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status("cannot write " + path);
    data = data.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return ok_status();
}

struct Chunk {
  const OutputTensor* tensor;
  int64_t first;
  int64_t rows;
  uint64_t offset;  // in the file
};

// Makes the chunk's values in `values` and rounds them into `rounded` if need be.
std::span<const std::byte> make(const Chunk& chunk,
                                std::vector<float>* values,
                                std::vector<uint16_t>* rounded) {
  const auto n = static_cast<size_t>(chunk.rows * chunk.tensor->cols());
  values->resize(n);
  chunk.tensor->fill(chunk.first, chunk.rows, values->data());
  if (chunk.tensor->dtype == DType::kF32) return std::as_bytes(std::span(*values));
  rounded->resize(n);
  for (size_t i = 0; i < n; ++i) (*rounded)[i] = f32_to_bf16((*values)[i]);
  return std::as_bytes(std::span(*rounded));
}

Status write_file(const std::string& path, std::span<const OutputTensor> tensors, int threads) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return errno_status("cannot make " + path);
  const std::string header = header_of(tensors);
  FLOTILLA_RETURN_IF_ERROR(write_at(fd.get(), std::as_bytes(std::span(header)), 0, path));

  std::vector<Chunk> chunks;
  uint64_t at = header.size();
  for (const OutputTensor& t : tensors) {
    const int64_t step = std::max<int64_t>(1, kChunkValues / t.cols());
    for (int64_t row = 0; row < t.rows(); row += step) {
      const int64_t rows = std::min(step, t.rows() - row);
      chunks.push_back({&t, row, rows, at});
      at += static_cast<uint64_t>(rows * t.cols()) * dtype_bytes(t.dtype);
    }
  }
  std::atomic<size_t> next = 0;
  Mutex mutex;
  Status first_error;
  const auto work = [&] {
    std::vector<float> values;
    std::vector<uint16_t> rounded;
    for (size_t i = next++; i < chunks.size(); i = next++) {
      const Status status =
          write_at(fd.get(), make(chunks[i], &values, &rounded), chunks[i].offset, path);
      if (status.ok()) continue;
      MutexLock lock(mutex);
      if (first_error.ok()) first_error = status;
      next = chunks.size();
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return first_error;
}

Status write_index(const std::string& path, const std::vector<std::span<OutputTensor>>& shards) {
  std::string json;
  JsonWriter w(&json);
  uint64_t total = 0;
  for (const auto& shard : shards) {
    for (const OutputTensor& t : shard) total += t.bytes();
  }
  w.begin_object();
  w.key("metadata");
  w.begin_object();
  w.field("total_size", total);
  w.end_object();
  w.key("weight_map");
  w.begin_object();
  for (size_t s = 0; s < shards.size(); ++s) {
    for (const OutputTensor& t : shards[s]) w.field(t.name, shard_name(s, shards.size()));
  }
  w.end_object();
  w.end_object();
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return errno_status("cannot make " + path);
  return write_at(fd.get(), std::as_bytes(std::span(json)), 0, path);
}

}  // namespace

Status write_safetensors(const std::string& dir,
                         std::vector<OutputTensor> tensors,
                         int shards,
                         int threads) {
  if (shards < 1 || static_cast<size_t>(shards) > tensors.size()) {
    return invalid_argument(std::to_string(shards) + " shards for " +
                            std::to_string(tensors.size()) +
                            " tensors; expected 1 to as many as there are tensors");
  }
  std::sort(tensors.begin(), tensors.end(), [](const OutputTensor& a, const OutputTensor& b) {
    return a.name < b.name;
  });
  const std::vector<std::span<OutputTensor>> cuts = cut(tensors, shards);
  for (size_t s = 0; s < cuts.size(); ++s) {
    // Larger elements first, so that each is aligned to its size.
    std::stable_sort(cuts[s].begin(), cuts[s].end(), [](const auto& a, const auto& b) {
      return dtype_bytes(a.dtype) > dtype_bytes(b.dtype);
    });
    FLOTILLA_RETURN_IF_ERROR(write_file(dir + "/" + shard_name(s, cuts.size()), cuts[s], threads));
  }
  return shards == 1 ? ok_status() : write_index(dir + "/model.safetensors.index.json", cuts);
}

}  // namespace flotilla::convert
