#include "kernels/reference/reference_table.h"

namespace flotilla {

const KernelTable kReferenceKernels = {
    .name = "reference",
    .embedding = reference::embedding,
    .gather_rows = reference::gather_rows,
    .rms_norm = reference::rms_norm,
    .packed_linear_bytes = reference::packed_linear_bytes,
    .pack_linear = reference::pack_linear,
    .linear = reference::linear,
    .grouped_linear = reference::grouped_linear,
    .rope_cache = reference::rope_cache,
    .paged_attention = reference::paged_attention,
    .paged_attention_workspace_bytes = reference::paged_attention_workspace_bytes,
    .swiglu = reference::swiglu,
    .moe_topk = reference::moe_topk,
    .moe_combine = reference::moe_combine,
    .sample = reference::sample,
    .sample_workspace_bytes = reference::sample_workspace_bytes,
    .token_logprobs = reference::token_logprobs,
    .cast = reference::cast,
};

}  // namespace flotilla
