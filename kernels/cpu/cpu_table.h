// The ops of the CPU: checks what only the data can show, divides the work, and calls the inner
// loops of the stream's instruction set. The same functions for all of them: the instruction set
// lies in the stream.
#pragma once

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/isa/isa_kernels.h"
#include "kernels/kernel_table.h"

namespace flotilla {

const KernelTable& cpu_kernels(CpuIsa isa);
// nullptr for kReference.
const IsaKernels* isa_kernels(CpuIsa isa);

namespace cpu {

void embedding(const EmbeddingParams& p, Stream& stream);
void gather_rows(const GatherRowsParams& p, Stream& stream);
void rms_norm(const RmsNormParams& p, Stream& stream);
size_t packed_linear_bytes(int64_t n, int64_t k, DType stored, const Stream& stream);
void pack_linear(const PackLinearParams& p, const Stream& stream);
void linear(const LinearParams& p, Stream& stream);
void grouped_linear(const GroupedLinearParams& p, Stream& stream);
void rope_cache(const RopeCacheParams& p, Stream& stream);
void paged_attention(const PagedAttentionParams& p, Stream& stream);
size_t paged_attention_workspace_bytes(int64_t max_rows,
                                       int64_t num_heads,
                                       int64_t max_context,
                                       const KvLayout& layout,
                                       const Stream& stream);
void swiglu(const SwiGluParams& p, Stream& stream);
void moe_topk(const MoeTopkParams& p, Stream& stream);
void moe_combine(const MoeCombineParams& p, Stream& stream);
void sample(const SampleParams& p, Stream& stream);
size_t sample_workspace_bytes(int64_t rows, int64_t vocab, const Stream& stream);
void token_logprobs(const TokenLogprobsParams& p, Stream& stream);
void cast(const CastParams& p, Stream& stream);

}  // namespace cpu
}  // namespace flotilla
