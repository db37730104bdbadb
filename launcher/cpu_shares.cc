#include "launcher/cpu_shares.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

namespace flotilla {
namespace {

// CPUs not given away yet, per node, in the machine's order (whole cores one after the other).
using FreeCpus = std::map<int, std::vector<Cpu>>;

// Takes `count` CPUs, from the node with the most free ones; from several nodes only if none has so
// many.
std::vector<Cpu> take(FreeCpus* free, size_t count) {
  std::vector<Cpu> taken;
  while (taken.size() < count) {
    const auto richest =
        std::max_element(free->begin(), free->end(), [](const auto& a, const auto& b) {
          return a.second.size() < b.second.size();
        });
    std::vector<Cpu>& cpus = richest->second;
    const size_t n = std::min(count - taken.size(), cpus.size());
    taken.insert(taken.end(), cpus.begin(), cpus.begin() + static_cast<std::ptrdiff_t>(n));
    cpus.erase(cpus.begin(), cpus.begin() + static_cast<std::ptrdiff_t>(n));
  }
  return taken;
}

}  // namespace

CpuShares divide_cpus(const Machine& machine, int num_ranks, int num_threads) {
  CpuShares shares;
  const auto cpus = static_cast<int>(std::max<size_t>(1, machine.cpus.size()));
  const bool limited = machine.cpu_quota && *machine.cpu_quota < cpus;
  const int usable = limited ? std::max(1, static_cast<int>(std::floor(*machine.cpu_quota))) : cpus;
  const int threads = num_threads > 0 ? num_threads : std::max(1, usable / num_ranks);
  if (int64_t{threads} * num_ranks > usable) {
    shares.warnings.push_back(std::to_string(num_ranks) + " ranks of " + std::to_string(threads) +
                              (threads == 1 ? " thread" : " threads") + " share " +
                              std::to_string(usable) + (usable == 1 ? " CPU" : " CPUs") +
                              ": they are not pinned and slow each other down");
  } else if (limited) {
    char quota[32];
    std::snprintf(quota, sizeof quota, "%g", *machine.cpu_quota);
    shares.warnings.push_back(std::string("the control group allows ") + quota + " of " +
                              std::to_string(cpus) + " CPUs: ranks are not pinned");
  }
  const bool pinned = !limited && !machine.cpus.empty() && int64_t{threads} * num_ranks <= cpus;
  FreeCpus free;
  std::map<int, std::vector<int>> of_node;
  for (const Cpu& cpu : machine.cpus) {
    free[cpu.node].push_back(cpu);
    of_node[cpu.node].push_back(cpu.id);
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    CpuShare share;
    share.num_threads = threads;
    if (pinned) {
      std::set<int> nodes;
      for (const Cpu& cpu : take(&free, static_cast<size_t>(threads))) {
        share.cores.push_back(cpu.id);
        nodes.insert(cpu.node);
      }
      // Where all nodes are its own, nothing needs to be said.
      if (nodes.size() < of_node.size()) {
        for (const int node : nodes)
          share.affinity.insert(share.affinity.end(), of_node[node].begin(), of_node[node].end());
      }
    }
    shares.ranks.push_back(std::move(share));
  }
  return shares;
}

}  // namespace flotilla
