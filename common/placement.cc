#include "common/placement.h"

#include <algorithm>
#include <map>

#include "common/check.h"

namespace flotilla {

ExpertPlacement place_experts(int32_t num_experts, int32_t num_ranks, std::span<const Rank> alive) {
  check(!alive.empty(), "experts need at least one rank");
  ExpertPlacement placement(static_cast<size_t>(num_experts));
  std::map<Rank, int32_t> held;
  for (const Rank rank : alive) held[rank] = 0;
  std::vector<size_t> orphans;
  for (int32_t r = 0; r < num_ranks; ++r) {
    const auto begin = static_cast<int32_t>(int64_t{num_experts} * r / num_ranks);
    const auto end = static_cast<int32_t>(int64_t{num_experts} * (r + 1) / num_ranks);
    const auto holder = held.find(Rank(r));
    for (int32_t e = begin; e < end; ++e) {
      if (holder == held.end()) {
        orphans.push_back(static_cast<size_t>(e));
      } else {
        placement[static_cast<size_t>(e)] = {{Rank(r), holder->second++}};
      }
    }
  }
  for (const size_t e : orphans) {
    const auto fewest = std::min_element(
        held.begin(), held.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    placement[e] = {{fewest->first, fewest->second++}};
  }
  return placement;
}

std::vector<Rank> all_ranks(int32_t num_ranks) {
  std::vector<Rank> ranks;
  for (int32_t r = 0; r < num_ranks; ++r) ranks.emplace_back(r);
  return ranks;
}

std::vector<ExpertId> experts_of(const ExpertPlacement& placement, Rank rank) {
  std::vector<std::pair<int32_t, ExpertId>> found;
  for (size_t e = 0; e < placement.size(); ++e) {
    for (const ExpertReplica& replica : placement[e]) {
      if (replica.rank == rank) found.emplace_back(replica.slot, ExpertId(static_cast<int32_t>(e)));
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<ExpertId> experts;
  for (const auto& [slot, expert] : found) experts.push_back(expert);
  return experts;
}

}  // namespace flotilla
