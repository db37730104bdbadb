// The rows of api_server's flag table, in three parts of a readable size. Names, defaults and
// meanings are FastDeploy's where it has the flag.
#pragma once

#include "common/flags/flag_spec.h"

namespace flotilla {

inline constexpr char kServerGroup[] = "Server";
inline constexpr char kModelGroup[] = "Model and text";
inline constexpr char kComputeGroup[] = "CPU and memory";
inline constexpr char kSchedulingGroup[] = "KV cache and scheduling";
inline constexpr char kFleetGroup[] = "Fleet";

std::vector<FlagSpec> server_rows();  // HTTP, model, text
std::vector<FlagSpec> engine_rows();  // CPU, memory, KV cache, scheduling
std::vector<FlagSpec>
fleet_rows();  // parallelism, queue port, step clock, Redis, prefill and decode apart

}  // namespace flotilla
