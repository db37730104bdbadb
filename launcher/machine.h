// What this machine gives the fleet: CPUs that the process may use, where they are, memory. Read
// once; the plan is a pure function of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace flotilla {

struct Cpu {
  int id = 0;
  int node = 0;  // NUMA node
  int core = 0;  // physical core: the lowest CPU id among its hardware threads
};

struct Machine {
  std::vector<Cpu> cpus;  // allowed by the affinity mask, by node, core, id
  std::optional<double>
      cpu_quota;             // CPUs' worth of time that the control group allows (docker --cpus)
  int64_t memory_bytes = 0;  // available, or the control group's limit if that is less; 0: unknown
};

// `sys`, `proc` and `cgroup`: "/sys", "/proc", "/sys/fs/cgroup" but for tests.
Machine read_machine(const std::vector<int>& allowed_cpus,
                     const std::string& sys = "/sys",
                     const std::string& proc = "/proc",
                     const std::string& cgroup = "/sys/fs/cgroup");

// This process's affinity mask.
std::vector<int> allowed_cpus();

}  // namespace flotilla
