// The CPU as a device: threads pinned to given cores, the best instruction set at run time.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "kernels/device.h"

namespace flotilla {

enum class CpuIsa { kReference, kAvx2, kAvx512, kAvx512Bf16 };

std::string_view cpu_isa_name(CpuIsa isa);  // "reference", "avx2", "avx512", "avx512_bf16"
// kInvalidArgument for an unknown name ("auto" gives best_cpu_isa()), kFailedPrecondition if this
// CPU lacks it.
StatusOr<CpuIsa> parse_cpu_isa(std::string_view name);
CpuIsa best_cpu_isa();
bool cpu_has(CpuIsa isa);

struct CpuDeviceOptions {
  int num_threads = 1;     // computing threads of a stream, the calling one included
  std::vector<int> cores;  // thread i runs on cores[i % size]; empty: not pinned
  CpuIsa isa = best_cpu_isa();
};

// Threads of a stream sleep when the stream has nothing to do; between the ops of a step they may
// wait actively for at most some tens of microseconds.
std::unique_ptr<Device> make_cpu_device(const CpuDeviceOptions& options);

}  // namespace flotilla
