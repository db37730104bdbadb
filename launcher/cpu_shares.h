// Which CPUs each rank gets.
#pragma once

#include <string>
#include <vector>

#include "launcher/machine.h"

namespace flotilla {

struct CpuShare {
  int num_threads = 1;
  std::vector<int> cores;     // one per thread, of no other rank; empty: not pinned
  std::vector<int> affinity;  // all CPUs of the NUMA nodes of `cores`; empty: any
};

struct CpuShares {
  std::vector<CpuShare> ranks;
  std::vector<std::string> warnings;
};

// `num_threads` per rank, or 0 for an equal share, at least 1. Ranks are pinned where the CPUs
// suffice for all of them and no control group's quota is smaller than the machine: under a quota
// every container would pin itself to the same first CPUs. A rank stays on one NUMA node if it
// fits; hardware threads of one core go to one rank.
CpuShares divide_cpus(const Machine& machine, int num_ranks, int num_threads);

}  // namespace flotilla
