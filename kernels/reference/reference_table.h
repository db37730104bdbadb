// The slow, obvious implementation of every op: scalar, one thread, sums in double. The oracle of
// the kernel tests, and the table of CPUs that have none of the instruction sets in kernels/cpu/.
#pragma once

#include "kernels/kernel_table.h"

namespace flotilla {

extern const KernelTable kReferenceKernels;

namespace reference {

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

}  // namespace reference
}  // namespace flotilla
