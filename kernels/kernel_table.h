// All ops of one device and instruction set. The functions in the op headers go through the
// stream's table; a device library or an instruction set is one filled table.
#pragma once

#include "kernels/cast.h"
#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "kernels/moe.h"
#include "kernels/paged_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_cache.h"
#include "kernels/sampler.h"
#include "kernels/swiglu.h"

namespace flotilla {

struct KernelTable {
  const char* name;  // "reference", "avx2", "avx512", "avx512_bf16"
  decltype(&flotilla::embedding) embedding;
  decltype(&flotilla::gather_rows) gather_rows;
  decltype(&flotilla::rms_norm) rms_norm;
  decltype(&flotilla::packed_linear_bytes) packed_linear_bytes;
  decltype(&flotilla::pack_linear) pack_linear;
  decltype(&flotilla::linear) linear;
  decltype(&flotilla::grouped_linear) grouped_linear;
  decltype(&flotilla::rope_cache) rope_cache;
  decltype(&flotilla::paged_attention) paged_attention;
  decltype(&flotilla::paged_attention_workspace_bytes) paged_attention_workspace_bytes;
  decltype(&flotilla::swiglu) swiglu;
  decltype(&flotilla::moe_topk) moe_topk;
  decltype(&flotilla::moe_combine) moe_combine;
  decltype(&flotilla::sample) sample;
  decltype(&flotilla::sample_workspace_bytes) sample_workspace_bytes;
  decltype(&flotilla::token_logprobs) token_logprobs;
  decltype(&flotilla::cast) cast;
};

}  // namespace flotilla
