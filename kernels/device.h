// A device: its memory, its streams, its kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "common/fd.h"
#include "common/status.h"
#include "kernels/stream.h"

namespace flotilla {

// Memory of a device, freed with the object. On the CPU: page-aligned, zeroed, huge pages where the
// kernel gives them.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer() { reset(); }

  void* data() const { return data_; }
  size_t size() const { return size_; }
  // The memfd behind an exportable buffer, else -1.
  int export_fd() const { return export_fd_.get(); }
  void reset();

 private:
  friend class CpuDevice;
  void* data_ = nullptr;
  size_t size_ = 0;
  UniqueFd export_fd_;
  void (*free_)(void*, size_t) = nullptr;
};

// Threads: any thread; a stream belongs to one thread at a time.
class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // "cpu avx512_bf16 (2 threads)"
  virtual std::string description() const = 0;
  // kResourceExhausted if there is not enough memory.
  virtual StatusOr<DeviceBuffer> allocate(size_t bytes) = 0;
  // One allocation that another process can map (CPU: memfd; CUDA: IPC handle).
  virtual StatusOr<DeviceBuffer> allocate_exportable(size_t bytes, const std::string& name) = 0;
  virtual std::unique_ptr<Stream> create_stream() = 0;
};

}  // namespace flotilla
