#include "kernels/cpu/isa/ops.h"

namespace flotilla::FLOTILLA_ISA {

extern const IsaKernels kKernels;
const IsaKernels kKernels = {
    gemm,
    rms_norm_row,
    swiglu_row,
    widen_row,
    round_row,
    rope_token,
    attention,
    merge_attention,
    attention_scratch_bytes,
    attention_partial_floats,
    topk_row,
    combine_row,
    clean_logits,
    largest,
    find,
    sum_exp,
    count_better,
    best,
    collect_above,
    sum_weights,
    draw,
    weights_of,
};

}  // namespace flotilla::FLOTILLA_ISA
