#include "tools/bench/kernels/peak.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>

namespace flotilla {
namespace {

constexpr int kChains = 12;  // enough to hide the latency of a multiply-add
constexpr int kRounds = 2'000'000;

// The loops are asm, so that the compiler neither merges nor drops them; each runs kChains ·
// kRounds instructions.
#define FLOTILLA_CHAINS(instruction, r)                                                            \
  instruction " %%" r "13, %%" r "14, %%" r "0\n" instruction " %%" r "13, %%" r "14, %%" r        \
              "1\n" instruction " %%" r "13, %%" r "14, %%" r "2\n" instruction " %%" r "13, %%" r \
              "14, %%" r "3\n" instruction " %%" r "13, %%" r "14, %%" r "4\n" instruction " %%" r \
              "13, %%" r "14, %%" r "5\n" instruction " %%" r "13, %%" r "14, %%" r                \
              "6\n" instruction " %%" r "13, %%" r "14, %%" r "7\n" instruction " %%" r "13, %%" r \
              "14, %%" r "8\n" instruction " %%" r "13, %%" r "14, %%" r "9\n" instruction " %%" r \
              "13, %%" r "14, %%" r "10\n" instruction " %%" r "13, %%" r "14, %%" r "11\n"
#define FLOTILLA_CLOBBERS                                                                  \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm13", "xmm14"

void multiply_256() {
  asm volatile("vzeroall" ::: FLOTILLA_CLOBBERS);
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(FLOTILLA_CHAINS("vfmadd231ps", "ymm")::: FLOTILLA_CLOBBERS);
  }
  asm volatile("vzeroupper" ::: FLOTILLA_CLOBBERS);
}
void multiply_512() {
  asm volatile("vzeroall" ::: FLOTILLA_CLOBBERS);
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(FLOTILLA_CHAINS("vfmadd231ps", "zmm")::: FLOTILLA_CLOBBERS);
  }
  asm volatile("vzeroupper" ::: FLOTILLA_CLOBBERS);
}
void multiply_pairs_512() {
  asm volatile("vzeroall" ::: FLOTILLA_CLOBBERS);
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(FLOTILLA_CHAINS("vdpbf16ps", "zmm")::: FLOTILLA_CLOBBERS);
  }
  asm volatile("vzeroupper" ::: FLOTILLA_CLOBBERS);
}

double best_gflops(void (*loop)(), int flops_per_instruction) {
  double best = 0.0;
  for (int i = 0; i < 7; ++i) {
    const auto start = std::chrono::steady_clock::now();
    loop();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, 1e-9 * kChains * kRounds * flops_per_instruction / seconds.count());
  }
  return best;
}

}  // namespace

double peak_gflops(CpuIsa isa, bool bf16) {
  switch (isa) {
    case CpuIsa::kReference:
      break;
    case CpuIsa::kAvx2:
      return best_gflops(multiply_256, 16);
    case CpuIsa::kAvx512:
      return best_gflops(multiply_512, 32);
    case CpuIsa::kAvx512Bf16:
      return bf16 ? best_gflops(multiply_pairs_512, 64) : best_gflops(multiply_512, 32);
  }
  return 0.0;
}

}  // namespace flotilla
