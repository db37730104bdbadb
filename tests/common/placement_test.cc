#include "common/placement.h"

#include <doctest/doctest.h>

#include <set>

using namespace flotilla;

TEST_CASE("Placement.SpreadsExpertsEvenlyAlsoWhereTheNumberDoesNotDivide") {
  const ExpertPlacement p = place_experts(10, 3, all_ranks(3));
  CHECK(experts_of(p, Rank(0)).size() == 3);
  CHECK(experts_of(p, Rank(1)).size() == 3);
  CHECK(experts_of(p, Rank(2)).size() == 4);
}

TEST_CASE("Placement.MoreRanksThanExpertsLeavesSomeWithout") {
  const ExpertPlacement p = place_experts(2, 5, all_ranks(5));
  size_t holders = 0, held = 0;
  for (const Rank r : all_ranks(5)) {
    holders += !experts_of(p, r).empty();
    held += experts_of(p, r).size();
  }
  CHECK(holders == 2);
  CHECK(held == 2);
}

TEST_CASE("Placement.OnlyTheExpertsOfALostRankMove") {
  const ExpertPlacement full = place_experts(16, 4, all_ranks(4));
  const std::vector<Rank> alive = {Rank(0), Rank(2), Rank(3)};
  const ExpertPlacement fewer = place_experts(16, 4, alive);
  std::set<int32_t> seen;
  for (const Rank r : alive) {
    const auto before = experts_of(full, r), after = experts_of(fewer, r);
    CHECK(std::equal(before.begin(), before.end(), after.begin()));  // same slots, too
    CHECK(after.size() >= 5);
    CHECK(after.size() <= 6);
    for (const ExpertId e : after) seen.insert(e.value);
  }
  CHECK(seen.size() == 16);
}
