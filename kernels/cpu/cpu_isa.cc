#include <cpuid.h>

#include "kernels/cpu/cpu_device.h"

namespace flotilla {
namespace {

// __builtin_cpu_supports knows these two in GCC, but not in clang 14. Source: Intel's manual,
// CPUID.

bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 29 & 1) != 0;
}

bool has_avx512_bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1) != 0;
}

}  // namespace

std::string_view cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return "reference";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

bool cpu_has(CpuIsa isa) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case CpuIsa::kReference:
      return true;
    case CpuIsa::kAvx2:
      return avx2;
    case CpuIsa::kAvx512:
      return avx512;
    case CpuIsa::kAvx512Bf16:
      return avx512 && has_avx512_bf16();
  }
  return false;
}

CpuIsa best_cpu_isa() {
  for (const CpuIsa isa : {CpuIsa::kAvx512Bf16, CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    if (cpu_has(isa)) return isa;
  }
  return CpuIsa::kReference;
}

StatusOr<CpuIsa> parse_cpu_isa(std::string_view name) {
  if (name == "auto") return best_cpu_isa();
  for (const CpuIsa isa :
       {CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (name != cpu_isa_name(isa)) continue;
    if (cpu_has(isa)) return isa;
    return failed_precondition("this CPU has no " + std::string(name) + "; the best it has is " +
                               std::string(cpu_isa_name(best_cpu_isa())) + " (use auto)");
  }
  return invalid_argument("unknown instruction set '" + std::string(name) +
                          "'; expected auto, reference, avx2, avx512 or avx512_bf16");
}

}  // namespace flotilla
