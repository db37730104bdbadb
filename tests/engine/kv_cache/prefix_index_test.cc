#include "engine/kv_cache/prefix_index.h"

#include <doctest/doctest.h>

using namespace flotilla;

namespace {
BlockId block(int32_t n) { return BlockId(n); }
}  // namespace

TEST_CASE("PrefixIndex.FindsTheLongestChainOfWholeBlocks") {
  PrefixIndex index(2);
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
  CHECK(index.insert(block(-1), std::vector<TokenId>{1, 2}, block(7)));
  CHECK(index.insert(block(7), std::vector<TokenId>{3, 4}, block(9)));
  CHECK(index.find(tokens, 10) == std::vector{block(7), block(9)});
  CHECK(index.find(tokens, 1) == std::vector{block(7)});
  CHECK(index.find(std::vector<TokenId>{1, 2, 3}, 10) == std::vector{block(7)});
  CHECK(index.find(std::vector<TokenId>{3, 4}, 10).empty());  // same tokens, another chain
}

TEST_CASE("PrefixIndex.KeepsTheFirstOfTwoBlocksWithOneContent") {
  PrefixIndex index(1);
  CHECK(index.insert(block(-1), std::vector<TokenId>{1}, block(1)));
  CHECK_FALSE(index.insert(block(-1), std::vector<TokenId>{1}, block(2)));
  CHECK(index.child(block(-1), std::vector<TokenId>{1}) == block(1));
}

TEST_CASE("PrefixIndex.ForgetsEverythingChainedBehindAnErasedBlock") {
  PrefixIndex index(1);
  index.insert(block(-1), std::vector<TokenId>{1}, block(1));
  index.insert(block(1), std::vector<TokenId>{2}, block(2));
  index.insert(block(2), std::vector<TokenId>{3}, block(3));
  index.insert(block(1), std::vector<TokenId>{4}, block(4));
  std::vector<BlockId> orphaned;
  index.erase(block(2), &orphaned);
  CHECK(orphaned == std::vector{block(3)});
  CHECK(index.find(std::vector<TokenId>{1, 2, 3}, 10) == std::vector{block(1)});
  CHECK(index.find(std::vector<TokenId>{1, 4}, 10).size() == 2);
  CHECK_FALSE(index.insert(block(2), std::vector<TokenId>{5}, block(5)));  // its parent is gone
}
