// Which rank holds which expert: a table, a pure function of who is there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"

namespace flotilla {

struct ExpertReplica {
  Rank rank;
  int32_t slot = 0;  // position in that rank's expert store
};

// Index = expert id; at least one replica each.
using ExpertPlacement = std::vector<std::vector<ExpertReplica>>;

// With all ranks alive, rank r holds a contiguous run of experts, the counts of any two ranks
// differing by at most one (with more ranks than experts some hold none). An expert whose rank is
// not alive goes to the alive rank with the fewest experts (ties: the lowest rank). `alive` is
// ascending and not empty; its ranks are in [0, num_ranks).
ExpertPlacement place_experts(int32_t num_experts, int32_t num_ranks, std::span<const Rank> alive);

// 0 … num_ranks − 1.
std::vector<Rank> all_ranks(int32_t num_ranks);

// The experts of `rank`, by slot.
std::vector<ExpertId> experts_of(const ExpertPlacement& placement, Rank rank);

}  // namespace flotilla
