// What all benchmarks print: figures over several runs, and where they were measured.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace flotilla::bench {

double median(std::vector<double> values);

// "name": {"median": …, "min": …, "max": …, "runs": [ … ]}
void write_runs(JsonWriter* json, std::string_view name, const std::vector<double>& runs);
// "machine": {"cpu": …, "cpus": …, "kernel": …}, "commit": …, "version": …, "flags": "…"
void write_environment(JsonWriter* json, const std::string& flags);

}  // namespace flotilla::bench
