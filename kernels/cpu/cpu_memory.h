// Memory of the CPU as a device, zeroed. Weights are read once a step and far larger than the
// caches: in small pages the address translation would cost a fifth of the bandwidth (measured), so
// everything lies in huge pages where the kernel gives them. Buffers of up to kShareBytes share
// slabs, for most weights of a small model are smaller than one huge page. Threads: any.
#pragma once

#include <cstddef>

namespace flotilla {

inline constexpr size_t kHugePageBytes = size_t{2} << 20;
inline constexpr size_t kSlabBytes = size_t{64} << 20;
inline constexpr size_t kShareBytes = size_t{16} << 20;

// Page-aligned, to huge pages if larger than kShareBytes. nullptr, and errno, if there is not
// enough.
void* map_private(size_t bytes);
// What map_private() gave, with the same size. The memory goes back to the system; its addresses
// are used again when all buffers of a slab are gone.
void unmap_private(void* data, size_t bytes);

// Maps a file of at least `bytes` bytes, shared with whoever maps it, too.
void* map_shared(size_t bytes, int fd);
void unmap_shared(void* data, size_t bytes);

// `bytes` in whole pages, at least one.
size_t whole_pages(size_t bytes);

}  // namespace flotilla
