#include "kernels/cpu/cpu_table.h"

#include "kernels/reference/reference_table.h"

namespace flotilla {

namespace avx2 {
extern const IsaKernels kKernels;
}
namespace avx512 {
extern const IsaKernels kKernels;
}
namespace avx512_bf16 {
extern const IsaKernels kKernels;
}

namespace {

constexpr KernelTable table(const char* name) {
  return {
      .name = name,
      .embedding = cpu::embedding,
      .gather_rows = cpu::gather_rows,
      .rms_norm = cpu::rms_norm,
      .packed_linear_bytes = cpu::packed_linear_bytes,
      .pack_linear = cpu::pack_linear,
      .linear = cpu::linear,
      .grouped_linear = cpu::grouped_linear,
      .rope_cache = cpu::rope_cache,
      .paged_attention = cpu::paged_attention,
      .paged_attention_workspace_bytes = cpu::paged_attention_workspace_bytes,
      .swiglu = cpu::swiglu,
      .moe_topk = cpu::moe_topk,
      .moe_combine = cpu::moe_combine,
      .sample = cpu::sample,
      .sample_workspace_bytes = cpu::sample_workspace_bytes,
      .token_logprobs = cpu::token_logprobs,
      .cast = cpu::cast,
  };
}

constexpr KernelTable kAvx2 = table("avx2");
constexpr KernelTable kAvx512 = table("avx512");
constexpr KernelTable kAvx512Bf16 = table("avx512_bf16");

}  // namespace

const KernelTable& cpu_kernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      break;
    case CpuIsa::kAvx2:
      return kAvx2;
    case CpuIsa::kAvx512:
      return kAvx512;
    case CpuIsa::kAvx512Bf16:
      return kAvx512Bf16;
  }
  return kReferenceKernels;
}

const IsaKernels* isa_kernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      break;
    case CpuIsa::kAvx2:
      return &avx2::kKernels;
    case CpuIsa::kAvx512:
      return &avx512::kKernels;
    case CpuIsa::kAvx512Bf16:
      return &avx512_bf16::kKernels;
  }
  return nullptr;
}

}  // namespace flotilla
