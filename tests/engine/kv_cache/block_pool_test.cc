#include "engine/kv_cache/block_pool.h"

#include <doctest/doctest.h>

using namespace flotilla;

TEST_CASE("BlockPool.TakesNothingWhenFewerThanAskedForAreFree") {
  BlockPool pool(3);
  CHECK_FALSE(pool.try_allocate(4).has_value());
  CHECK(pool.num_available() == 3);
  CHECK(pool.try_allocate(3)->size() == 3);
  CHECK(pool.try_allocate(0)->empty());
}

TEST_CASE("BlockPool.FreesABlockWithItsLastOwner") {
  BlockPool pool(1);
  const auto blocks = *pool.try_allocate(1);
  pool.share(blocks[0]);
  pool.release(blocks);
  CHECK(pool.num_available() == 0);
  pool.release(blocks);
  CHECK(pool.num_available() == 1);
}

TEST_CASE("BlockPool.EvictsTheLongestUnusedAndOfOneSequenceTheLastBlockFirst") {
  BlockPool pool(4);
  std::vector<BlockId> evicted;
  pool.on_evict([&](BlockId b) { evicted.push_back(b); });
  const auto a = *pool.try_allocate(2);
  const auto b = *pool.try_allocate(2);
  for (const BlockId block : a) pool.set_cached(block, true);
  for (const BlockId block : b) pool.set_cached(block, true);
  pool.release(a);
  pool.release(b);
  CHECK(pool.num_available() == 4);
  CHECK(pool.try_allocate(3)->size() == 3);
  CHECK(evicted == std::vector{a[1], a[0], b[1]});
}

TEST_CASE("BlockPool.ACachedBlockThatIsSharedAgainIsNotEvicted") {
  BlockPool pool(2);
  const auto a = *pool.try_allocate(1);
  pool.set_cached(a[0], true);
  pool.release(a);
  pool.share(a[0]);
  CHECK(pool.num_available() == 1);
  CHECK(pool.try_allocate(1)->front() != a[0]);
}

TEST_CASE("BlockPool.GenerationTellsWhetherABlockWasHandedOutAnew") {
  BlockPool pool(1);
  const auto first = *pool.try_allocate(1);
  const uint32_t generation = pool.generation(first[0]);
  pool.pin(first[0]);
  pool.release(first);
  CHECK(pool.num_available() == 0);  // a transfer holds it
  pool.unpin(first[0]);
  const auto second = *pool.try_allocate(1);
  CHECK(second[0] == first[0]);
  CHECK(pool.generation(second[0]) != generation);
}
