#include "kernels/cpu/cpu_device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "kernels/cpu/cpu_stream.h"

namespace flotilla {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

size_t page_size() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

void unmap(void* data, size_t size) { ::munmap(data, round_up(size, page_size())); }

Status out_of_memory(size_t bytes, std::string_view what) {
  return resource_exhausted("cannot allocate " + std::to_string(bytes) + " bytes (" +
                            std::string(what) + ": " + std::strerror(errno) +
                            "); ask for less or free memory on this host");
}

// Maps `size` bytes (whole pages), aligned to a huge page if they fill one. MAP_FAILED if there is
// no room.
void* map_aligned(size_t size, int flags, int fd) {
  if (size < kHugePage) return ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  // Reserve enough to choose an aligned start, then map over it and give the rest back.
  const size_t reserved = size + kHugePage;
  void* const base =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return base;
  const auto begin = reinterpret_cast<uintptr_t>(base);
  const uintptr_t start = round_up(begin, kHugePage);
  void* const data = ::mmap(
      reinterpret_cast<void*>(start), size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    ::munmap(base, reserved);
    errno = error;
    return data;
  }
  if (start > begin) ::munmap(base, start - begin);
  const uintptr_t end = start + size;
  if (end < begin + reserved) ::munmap(reinterpret_cast<void*>(end), begin + reserved - end);
  ::madvise(data, size, MADV_HUGEPAGE);  // a kernel without huge pages is slower, not wrong
  return data;
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
    return map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, UniqueFd());
  }

  StatusOr<DeviceBuffer> allocate_exportable(size_t bytes, const std::string& name) override {
    UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) return out_of_memory(bytes, "memfd_create");
    if (::ftruncate(fd.get(), static_cast<off_t>(mapped_size(bytes))) != 0) {
      return out_of_memory(bytes, "ftruncate of a memfd");
    }
    // Whoever maps it may rely on its size: a shrunk file would be a SIGBUS.
    ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return map(bytes, MAP_SHARED, std::move(fd));
  }

  std::unique_ptr<Stream> create_stream() override { return std::make_unique<CpuStream>(options_); }

 private:
  static size_t mapped_size(size_t bytes) { return round_up(bytes == 0 ? 1 : bytes, page_size()); }

  static StatusOr<DeviceBuffer> map(size_t bytes, int flags, UniqueFd fd) {
    if (bytes > SIZE_MAX / 4) {
      errno = ENOMEM;
      return out_of_memory(bytes, "mmap");
    }
    void* const data = map_aligned(mapped_size(bytes), flags, fd.get());
    if (data == MAP_FAILED) return out_of_memory(bytes, "mmap");
    DeviceBuffer buffer;
    buffer.data_ = data;
    buffer.size_ = bytes;
    buffer.export_fd_ = std::move(fd);
    buffer.free_ = unmap;
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
