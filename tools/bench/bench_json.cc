#include "tools/bench/bench_json.h"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>

#include "common/fd.h"

namespace flotilla::bench {

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void write_runs(JsonWriter* json, std::string_view name, const std::vector<double>& runs) {
  json->key(name);
  json->begin_object();
  json->field("median", median(runs));
  json->field("min", runs.empty() ? 0.0 : *std::min_element(runs.begin(), runs.end()));
  json->field("max", runs.empty() ? 0.0 : *std::max_element(runs.begin(), runs.end()));
  json->key("runs");
  json->begin_array();
  for (const double run : runs) json->value(run);
  json->end_array();
  json->end_object();
}

void write_environment(JsonWriter* json, const std::string& flags) {
  std::string cpu = "unknown";
  if (const StatusOr<std::string> info = read_file("/proc/cpuinfo", 1 << 22); info.ok()) {
    constexpr std::string_view kKey = "model name\t: ";
    if (const size_t at = info->find(kKey); at != info->npos) {
      cpu = info->substr(at + kKey.size(), info->find('\n', at) - at - kKey.size());
    }
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  utsname kernel{};
  ::uname(&kernel);
  json->key("machine");
  json->begin_object();
  json->field("cpu", cpu);
  json->field("cpus", CPU_COUNT(&set));
  json->field("kernel", kernel.release);
  json->end_object();
  json->field("commit", FLOTILLA_COMMIT);
  json->field("version", FLOTILLA_VERSION);
  json->field("flags", flags);
}

}  // namespace flotilla::bench
