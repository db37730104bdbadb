#include "engine/kv_cache/kv_cache.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu_device.h"

using namespace flotilla;

TEST_CASE("KvCache.AnotherMappingSeesTheSameBlocksByTheHeader") {
  auto device = make_cpu_device({.num_threads = 1, .cores = {}, .isa = CpuIsa::kReference});
  const KvLayout layout{.num_layers = 2,
                        .num_blocks = 3,
                        .block_size = 4,
                        .num_kv_heads = 2,
                        .head_dim = 8,
                        .dtype = DType::kBf16};
  auto cache = KvCache::create(layout, *device);
  REQUIRE(cache.ok());
  const KvPoolHeader h = cache->header();
  CHECK(h.bytes == 2 * 3 * 2 * 2 * 4 * 8 * 2);
  CHECK(h.element_bytes == 2);
  REQUIRE(cache->export_fd() >= 0);
  void* other =
      mmap(nullptr, static_cast<size_t>(h.bytes), PROT_READ, MAP_SHARED, cache->export_fd(), 0);
  REQUIRE(other != MAP_FAILED);
  // V of layer 1, block 2, head 1, token 3, dimension 7, by the documented order [layer][block][K,
  // V][kv_head][token][dim].
  const int64_t at =
      ((((1 * h.num_blocks + 2) * 2 + 1) * h.num_kv_heads + 1) * h.block_size + 3) * h.head_dim + 7;
  CHECK(layout.offset(1, 2, 1, 1) + 3 * 8 + 7 == at);
  static_cast<uint16_t*>(cache->data())[at] = 0x1234;
  CHECK(static_cast<uint16_t*>(other)[at] == 0x1234);
  munmap(other, static_cast<size_t>(h.bytes));
}

TEST_CASE("KvCache.SaysWhatItNeedsAndWhichFlagsChangeIt") {
  auto device = make_cpu_device({.num_threads = 1, .cores = {}, .isa = CpuIsa::kReference});
  const KvLayout huge{.num_layers = 1 << 10,
                      .num_blocks = 1 << 30,
                      .block_size = 64,
                      .num_kv_heads = 64,
                      .head_dim = 128,
                      .dtype = DType::kF32};
  const Status status = KvCache::create(huge, *device).status();
  CHECK(status.code() == StatusCode::kResourceExhausted);
  CHECK(status.message().find("lower --num-gpu-blocks-override or --kv-cache-memory") !=
        std::string::npos);
}
