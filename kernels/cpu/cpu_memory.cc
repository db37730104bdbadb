#include "kernels/cpu/cpu_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <map>

#include "common/check.h"
#include "common/mutex.h"

namespace flotilla {
namespace {

uintptr_t round_up(uintptr_t value, uintptr_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Maps `bytes` (whole pages) at a multiple of the huge page. nullptr, and errno, if there is no
// room.
void* map_aligned(size_t bytes, int flags, int fd) {
  // Reserve enough to choose the start, then map over it and give the rest back.
  const size_t reserved = bytes + kHugePageBytes;
  void* const base =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(base);
  const uintptr_t start = round_up(begin, kHugePageBytes), end = start + bytes;
  void* const data = ::mmap(
      reinterpret_cast<void*>(start), bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    ::munmap(base, reserved);
    errno = error;
    return nullptr;
  }
  if (start > begin) ::munmap(base, start - begin);
  if (end < begin + reserved) ::munmap(reinterpret_cast<void*>(end), begin + reserved - end);
  ::madvise(data, bytes, MADV_HUGEPAGE);  // a kernel without huge pages is slower, not wrong
  return data;
}

// Slabs are filled from the front; a slab goes when its last buffer does.
class Slabs {
 public:
  void* allocate(size_t bytes) {
    MutexLock lock(mutex_);
    if (slabs_.count(current_) == 0 || slabs_[current_].used + bytes > kSlabBytes) {
      void* const slab = map_aligned(kSlabBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
      if (slab == nullptr) return nullptr;
      current_ = reinterpret_cast<uintptr_t>(slab);
    }
    Slab& slab = slabs_[current_];
    void* const data = reinterpret_cast<void*>(current_ + slab.used);
    slab.used += bytes;
    ++slab.buffers;
    return data;
  }

  void release(void* data, size_t bytes) {
    MutexLock lock(mutex_);
    const auto slab = std::prev(slabs_.upper_bound(reinterpret_cast<uintptr_t>(data)));
    if (--slab->second.buffers > 0) {
      ::madvise(data, bytes, MADV_DONTNEED);
      return;
    }
    ::munmap(reinterpret_cast<void*>(slab->first), kSlabBytes);
    slabs_.erase(slab);
  }

 private:
  struct Slab {
    size_t used = 0;
    int buffers = 0;
  };
  Mutex mutex_;
  std::map<uintptr_t, Slab> slabs_ GUARDED_BY(mutex_);  // by address
  uintptr_t current_ GUARDED_BY(mutex_) = 0;            // the one being filled, if it still exists
};

Slabs& slabs() {
  static auto* const all = new Slabs;  // lives as long as the last buffer of any static object
  return *all;
}

}  // namespace

size_t whole_pages(size_t bytes) {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return round_up(bytes == 0 ? 1 : bytes, page);
}

void* map_private(size_t bytes) {
  if (bytes <= kShareBytes) return slabs().allocate(whole_pages(bytes));
  return map_aligned(round_up(bytes, kHugePageBytes), MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

void unmap_private(void* data, size_t bytes) {
  if (bytes <= kShareBytes) {
    slabs().release(data, whole_pages(bytes));
  } else {
    ::munmap(data, round_up(bytes, kHugePageBytes));
  }
}

void* map_shared(size_t bytes, int fd) { return map_aligned(whole_pages(bytes), MAP_SHARED, fd); }

void unmap_shared(void* data, size_t bytes) { ::munmap(data, whole_pages(bytes)); }

}  // namespace flotilla
