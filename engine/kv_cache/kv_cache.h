// The memory of the KV cache: one exportable allocation, and the header that tells another process
// how it lies.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "kernels/device.h"
#include "kernels/kv_layout.h"

namespace flotilla {

// Travels with the allocation's handle (memfd, IPC handle). Plain data, little-endian.
// Layout of the memory: [layer][block][K, V][kv_head][token][dim], elements of `dtype`, no padding.
struct KvPoolHeader {
  static constexpr uint64_t kMagic = 0x31304C4F4F50564B;  // "KVPOOL01"
  uint64_t magic = kMagic;
  uint32_t dtype = 0;  // flotilla::DType: 0 F32, 1 BF16
  uint32_t element_bytes = 0;
  int64_t num_layers = 0;
  int64_t num_blocks = 0;
  int64_t block_size = 0;  // tokens
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t bytes = 0;  // of the allocation
};

class KvCache {
 public:
  // kResourceExhausted names the bytes needed and the flags that change them.
  static StatusOr<KvCache> create(const KvLayout& layout, Device& device);

  const KvLayout& layout() const { return layout_; }
  void* data() const { return memory_.data(); }
  KvPoolHeader header() const;
  // Descriptor of the allocation for another process (CPU), or −1.
  int export_fd() const { return memory_.export_fd(); }

 private:
  KvLayout layout_;
  DeviceBuffer memory_;
};

}  // namespace flotilla
