#include "engine/kv_cache/kv_cache.h"

namespace flotilla {

StatusOr<KvCache> KvCache::create(const KvLayout& layout, Device& device) {
  KvCache cache;
  cache.layout_ = layout;
  StatusOr<DeviceBuffer> memory = device.allocate_exportable(layout.bytes(), "flotilla-kv");
  if (!memory.ok()) {
    return resource_exhausted("the KV cache needs " + std::to_string(layout.bytes() >> 20) +
                              " MiB (" + std::to_string(layout.num_blocks) + " blocks of " +
                              std::to_string(layout.block_size) +
                              " tokens): " + memory.status().message() +
                              "; lower --num-gpu-blocks-override or --kv-cache-memory");
  }
  cache.memory_ = std::move(*memory);
  return cache;
}

KvPoolHeader KvCache::header() const {
  return {.dtype = static_cast<uint32_t>(layout_.dtype),
          .element_bytes = static_cast<uint32_t>(dtype_bytes(layout_.dtype)),
          .num_layers = layout_.num_layers,
          .num_blocks = layout_.num_blocks,
          .block_size = layout_.block_size,
          .num_kv_heads = layout_.num_kv_heads,
          .head_dim = layout_.head_dim,
          .bytes = static_cast<int64_t>(layout_.bytes())};
}

}  // namespace flotilla
