// What one core can do at most, measured: multiply-adds between registers, nothing else.
#pragma once

#include "kernels/cpu/cpu_device.h"

namespace flotilla {

// GFLOP/s of this instruction set, for BF16 pairs where it has them (`bf16`), else for F32. 0 for
// kReference.
double peak_gflops(CpuIsa isa, bool bf16);

}  // namespace flotilla
