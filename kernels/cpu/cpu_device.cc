#include "kernels/cpu/cpu_device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "kernels/cpu/cpu_memory.h"
#include "kernels/cpu/cpu_stream.h"

namespace flotilla {
namespace {

Status out_of_memory(size_t bytes, std::string_view what) {
  return resource_exhausted("cannot allocate " + std::to_string(bytes) + " bytes (" +
                            std::string(what) + ": " + std::strerror(errno) +
                            "); ask for less or free memory on this host");
}

}  // namespace

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const CpuDeviceOptions& options) : options_(options) {}

  DeviceKind kind() const override { return DeviceKind::kCpu; }

  std::string description() const override {
    return "cpu " + std::string(cpu_isa_name(options_.isa)) + " (" +
           std::to_string(options_.num_threads) +
           (options_.num_threads == 1 ? " thread)" : " threads)");
  }

  StatusOr<DeviceBuffer> allocate(size_t bytes) override {
    if (bytes > kMostBytes) return too_large(bytes);
    void* const data = map_private(bytes);
    if (data == nullptr) return out_of_memory(bytes, "mmap");
    return make_buffer(data, bytes, UniqueFd(), unmap_private);
  }

  StatusOr<DeviceBuffer> allocate_exportable(size_t bytes, const std::string& name) override {
    if (bytes > kMostBytes) return too_large(bytes);
    UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) return out_of_memory(bytes, "memfd_create");
    if (::ftruncate(fd.get(), static_cast<off_t>(whole_pages(bytes))) != 0) {
      return out_of_memory(bytes, "ftruncate of a memfd");
    }
    // Whoever maps it may rely on its size: a shrunk file would be a SIGBUS.
    ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    void* const data = map_shared(bytes, fd.get());
    if (data == nullptr) return out_of_memory(bytes, "mmap");
    return make_buffer(data, bytes, std::move(fd), unmap_shared);
  }

  std::unique_ptr<Stream> create_stream() override { return std::make_unique<CpuStream>(options_); }

 private:
  static constexpr size_t kMostBytes = size_t{1} << 48;

  static Status too_large(size_t bytes) {
    errno = ENOMEM;
    return out_of_memory(bytes, "mmap");
  }

  static DeviceBuffer make_buffer(void* data,
                                  size_t bytes,
                                  UniqueFd fd,
                                  void (*free)(void*, size_t)) {
    DeviceBuffer buffer;
    buffer.data_ = data;
    buffer.size_ = bytes;
    buffer.export_fd_ = std::move(fd);
    buffer.free_ = free;
    return buffer;
  }

  const CpuDeviceOptions options_;
};

std::unique_ptr<Device> make_cpu_device(const CpuDeviceOptions& options) {
  check(options.num_threads >= 1, "a CPU device needs at least one thread");
  check(cpu_has(options.isa), "this CPU lacks the instruction set that was asked for");
  return std::make_unique<CpuDevice>(options);
}

}  // namespace flotilla
