#include "launcher/machine.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "launcher/cpu_shares.h"

using namespace flotilla;

namespace {

namespace fs = std::filesystem;

// A made-up /sys, /proc and control-group tree.
class Tree {
 public:
  Tree() {
    char name[] = "/tmp/flotilla-machine-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    root = name;
  }
  ~Tree() { fs::remove_all(root); }
  void file(const std::string& path, const std::string& content) {
    fs::create_directories(fs::path(root + path).parent_path());
    std::ofstream(root + path) << content;
  }
  Machine read(const std::vector<int>& allowed) const {
    return read_machine(allowed, root + "/sys", root + "/proc", root + "/cgroup");
  }

  std::string root;
};

// Two nodes of two cores with two hardware threads each, numbered as Linux usually does: 0-3 are
// the cores, 4-7 their twins.
Machine two_nodes() {
  Machine m;
  for (const int node : {0, 1}) {
    for (const int core : {2 * node, 2 * node + 1}) {
      m.cpus.push_back({core, node, core});
      m.cpus.push_back({core + 4, node, core});
    }
  }
  return m;
}

Machine flat(int cpus) {
  Machine m;
  for (int i = 0; i < cpus; ++i) m.cpus.push_back({i, 0, i});
  return m;
}

}  // namespace

TEST_CASE("Machine.ReadsNodesCoresAndTheAllowedCpus") {
  Tree tree;
  tree.file("/sys/devices/system/node/online", "0-1\n");
  tree.file("/sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
  tree.file("/sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
  for (int cpu = 0; cpu < 8; ++cpu) {
    tree.file(
        "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
        std::to_string(cpu % 4) + "," + std::to_string(cpu % 4 + 4) + "\n");
  }
  const Machine m = tree.read({0, 1, 2, 4, 6});
  std::vector<int> ids;
  for (const Cpu& cpu : m.cpus) ids.push_back(cpu.id);
  CHECK(ids == std::vector<int>{0, 4, 1, 2, 6});  // cores stay together
  CHECK(m.cpus[4].node == 1);
  CHECK(m.cpus[4].core == 2);
  CHECK_FALSE(m.cpu_quota.has_value());
  CHECK(m.memory_bytes == 0);
}

TEST_CASE("Machine.RespectsQuotasOfControlGroupsVersion2") {
  Tree tree;
  tree.file("/proc/self/cgroup", "0::/kubepods/pod1\n");
  tree.file("/proc/meminfo", "MemTotal: 100 kB\nMemAvailable:    1048576 kB\n");
  tree.file("/cgroup/kubepods/cpu.max", "150000 100000\n");
  tree.file("/cgroup/kubepods/pod1/cpu.max", "max 100000\n");
  tree.file("/cgroup/kubepods/pod1/memory.max", "536870912\n");
  const Machine m = tree.read({0});
  CHECK(m.cpu_quota == 1.5);
  CHECK(m.memory_bytes == 512 << 20);
}

TEST_CASE("Machine.RespectsQuotasOfControlGroupsVersion1AndContainersThatSeeThemselvesAsTheRoot") {
  Tree tree;
  tree.file("/proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n");
  tree.file("/proc/meminfo", "MemAvailable: 2048 kB\n");
  tree.file("/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
  tree.file("/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  tree.file("/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  const Machine m = tree.read({0});
  CHECK(m.cpu_quota == 4.0);
  CHECK(m.memory_bytes == 2 << 20);
  Tree unlimited;
  unlimited.file("/proc/self/cgroup", "5:cpu:/\n");
  unlimited.file("/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  unlimited.file("/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  CHECK_FALSE(unlimited.read({0}).cpu_quota.has_value());
}

TEST_CASE("Machine.ThisOneHasACpu") {
  const Machine m = read_machine(allowed_cpus());
  CHECK_FALSE(m.cpus.empty());
  CHECK(m.memory_bytes > 0);
}

TEST_CASE("DivideCpus.SharesAreEqualDisjointAndPinned") {
  const CpuShares shares = divide_cpus(flat(8), 3, 0);
  std::set<int> all;
  for (const CpuShare& share : shares.ranks) {
    CHECK(share.num_threads == 2);
    CHECK(share.cores.size() == 2);
    CHECK(share.affinity.empty());  // one node: nothing to restrict
    for (const int cpu : share.cores) CHECK(all.insert(cpu).second);
  }
  CHECK(shares.warnings.empty());
}

TEST_CASE("DivideCpus.ARankStaysOnItsNumaNodeWithWholeCores") {
  const CpuShares shares = divide_cpus(two_nodes(), 2, 0);
  CHECK(shares.ranks[0].cores == std::vector<int>{0, 4, 1, 5});
  CHECK(shares.ranks[1].cores == std::vector<int>{2, 6, 3, 7});
  CHECK(shares.ranks[1].affinity == std::vector<int>{2, 6, 3, 7});
  const CpuShares four = divide_cpus(two_nodes(), 4, 0);
  std::multiset<int> nodes;
  for (const CpuShare& share : four.ranks) {
    CHECK(share.cores[1] == share.cores[0] + 4);  // twins
    nodes.insert(share.cores[0] / 2);
  }
  CHECK(nodes.count(0) == 2);
  CHECK(nodes.count(1) == 2);
}

TEST_CASE("DivideCpus.MoreRanksThanCpusShareUnpinnedWithAWarning") {
  const CpuShares shares = divide_cpus(flat(2), 8, 0);
  CHECK(shares.ranks[7].num_threads == 1);
  CHECK(shares.ranks[7].cores.empty());
  REQUIRE(shares.warnings.size() == 1);
  CHECK(shares.warnings[0] ==
        "8 ranks of 1 thread share 2 CPUs: they are not pinned and slow each other down");
}

TEST_CASE("DivideCpus.AQuotaCountsAndForbidsPinning") {
  Machine m = flat(64);
  m.cpu_quota = 4.0;
  const CpuShares shares = divide_cpus(m, 2, 0);
  CHECK(shares.ranks[0].num_threads == 2);
  CHECK(shares.ranks[0].cores.empty());
  REQUIRE(shares.warnings.size() == 1);
  CHECK(shares.warnings[0] == "the control group allows 4 of 64 CPUs: ranks are not pinned");
  m.cpu_quota = 0.5;
  CHECK(divide_cpus(m, 2, 0).ranks[0].num_threads == 1);
}

TEST_CASE("DivideCpus.NumThreadsOverrides") {
  CHECK(divide_cpus(flat(8), 2, 3).ranks[1].cores == std::vector<int>{3, 4, 5});
  const CpuShares many = divide_cpus(flat(2), 2, 2);
  CHECK(many.ranks[0].num_threads == 2);
  CHECK(many.ranks[0].cores.empty());
  CHECK(many.warnings.size() == 1);
}
