#include "launcher/machine.h"

#include <sched.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <tuple>

#include "common/fd.h"
#include "common/flags/flag_value.h"

namespace flotilla {
namespace {

constexpr size_t kMaxFile = 1u << 20;
constexpr int kMaxNodes = 1024;

std::string content(const std::string& path) {
  const StatusOr<std::string> text = read_file(path, kMaxFile);
  return text.ok() ? *text : "";
}

std::string first_word(const std::string& text) {
  std::istringstream words(text);
  std::string word;
  words >> word;
  return word;
}

std::map<int, int> nodes_of_cpus(const std::string& sys) {
  std::map<int, int> nodes;
  const auto online = parse_cpu_list(content(sys + "/devices/system/node/online"));
  for (const int node : online.value_or(std::vector<int>())) {
    if (node >= kMaxNodes) break;
    const auto cpus = parse_cpu_list(
        content(sys + "/devices/system/node/node" + std::to_string(node) + "/cpulist"));
    for (const int cpu : cpus.value_or(std::vector<int>())) nodes[cpu] = node;
  }
  return nodes;
}

int core_of_cpu(const std::string& sys, int cpu) {
  const auto siblings = parse_cpu_list(content(
      sys + "/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list"));
  return siblings && !siblings->empty() ? *std::min_element(siblings->begin(), siblings->end())
                                        : cpu;
}

// This process's folder under a control-group controller; version 2 has the empty name.
std::string cgroup_folder(const std::string& proc, const std::string& controller) {
  std::istringstream lines(content(proc + "/self/cgroup"));
  std::string line;
  while (std::getline(lines, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    const std::vector<std::string> list = split_list(names);
    const bool mine = controller.empty()
                          ? names.empty()
                          : std::find(list.begin(), list.end(), controller) != list.end();
    if (mine) return line.substr(second + 1);
  }
  return "/";
}

// Calls read(folder) for this group and every one above it: each may limit. A container often sees
// its own group as the root.
template <typename Read>
void for_each_group(const std::string& root, std::string folder, Read read) {
  while (true) {
    read(root + folder);
    const size_t slash = folder.rfind('/');
    if (folder.empty() || folder == "/" || slash == std::string::npos) break;
    folder.erase(slash);
  }
}

void lower(std::optional<double>* limit, std::optional<double> other) {
  if (other && (!*limit || *other < **limit)) *limit = other;
}

std::optional<double> cpu_quota(const std::string& proc, const std::string& cgroup) {
  std::optional<double> quota;
  for_each_group(cgroup, cgroup_folder(proc, ""), [&](const std::string& folder) {
    std::istringstream words(content(folder + "/cpu.max"));  // "200000 100000" or "max 100000"
    double allowed = 0.0, period = 0.0;
    if (words >> allowed >> period && allowed > 0.0 && period > 0.0)
      lower(&quota, allowed / period);
  });
  for_each_group(cgroup + "/cpu", cgroup_folder(proc, "cpu"), [&](const std::string& folder) {
    const auto allowed = parse_integer(first_word(content(folder + "/cpu.cfs_quota_us")));
    const auto period = parse_integer(first_word(content(folder + "/cpu.cfs_period_us")));
    if (allowed && period && *allowed > 0 && *period > 0) {
      lower(&quota, static_cast<double>(*allowed) / static_cast<double>(*period));
    }
  });
  return quota;
}

// The page cache counts as use, so the limit itself says more than what is left of it.
std::optional<double> memory_limit(const std::string& file) {
  const auto limit = parse_integer(first_word(content(file)));
  if (!limit || *limit <= 0) return std::nullopt;
  return static_cast<double>(*limit);
}

int64_t available_memory(const std::string& proc, const std::string& cgroup) {
  std::optional<double> bytes;
  std::istringstream lines(content(proc + "/meminfo"));
  std::string line;
  while (std::getline(lines, line)) {
    if (!line.starts_with("MemAvailable:")) continue;
    if (const auto kib = parse_integer(first_word(line.substr(sizeof "MemAvailable:" - 1)))) {
      bytes = static_cast<double>(*kib) * 1024.0;
    }
  }
  for_each_group(cgroup, cgroup_folder(proc, ""), [&](const std::string& folder) {
    lower(&bytes, memory_limit(folder + "/memory.max"));
  });
  for_each_group(cgroup + "/memory", cgroup_folder(proc, "memory"), [&](const std::string& folder) {
    lower(&bytes, memory_limit(folder + "/memory.limit_in_bytes"));
  });
  return static_cast<int64_t>(bytes.value_or(0.0));
}

}  // namespace

Machine read_machine(const std::vector<int>& allowed,
                     const std::string& sys,
                     const std::string& proc,
                     const std::string& cgroup) {
  Machine machine;
  const std::map<int, int> nodes = nodes_of_cpus(sys);
  for (const int cpu : allowed) {
    const auto node = nodes.find(cpu);
    machine.cpus.push_back({cpu, node == nodes.end() ? 0 : node->second, core_of_cpu(sys, cpu)});
  }
  std::sort(machine.cpus.begin(), machine.cpus.end(), [](const Cpu& a, const Cpu& b) {
    return std::tie(a.node, a.core, a.id) < std::tie(b.node, b.core, b.id);
  });
  machine.cpu_quota = cpu_quota(proc, cgroup);
  machine.memory_bytes = available_memory(proc, cgroup);
  return machine;
}

std::vector<int> allowed_cpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace flotilla
