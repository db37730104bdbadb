// What the sources of this folder define for table.cc, once per instruction set.
#pragma once

#include "kernels/cpu/isa/isa_kernels.h"

namespace flotilla::FLOTILLA_ISA {

void gemm(const GemmTask& task);

void rms_norm_row(
    const float* x, float* residual, const float* w, float eps, int64_t c, void* y, Stored y_type);
void swiglu_row(const float* gate_up, int64_t width, void* y, Stored y_type);
void widen_row(const void* x, Stored x_type, float* y, int64_t n);
void round_row(const float* x, uint16_t* y, int64_t n);
void rope_token(const RopeTask& task);

void attention(const AttentionTask& task);
void merge_attention(const MergeAttentionTask& task);
int64_t attention_scratch_bytes(int64_t group, int64_t head_dim);
int64_t attention_partial_floats(int64_t head_dim);

void topk_row(const TopkTask& task);
void combine_row(const float* rows,
                 int64_t row_stride,
                 const float* weights,
                 int64_t k,
                 const float* base,
                 float* y,
                 int64_t c);

void clean_logits(const float* x, const uint32_t* allowed, float* y, int64_t v);
float largest(const float* x, int64_t v);
int64_t find(const float* x, int64_t v, float value);
double sum_exp(const float* x, int64_t v, float largest);
int64_t count_better(const float* x, int64_t v, float value, int64_t id);
void best(const float* x, int64_t v, int64_t n, int32_t* ids, float* values);
int64_t collect_above(const float* x, int64_t v, float floor, int32_t* ids);
uint64_t sum_weights(const DrawTask& task);
int64_t draw(const DrawTask& task, uint64_t target);
void weights_of(const DrawTask& task, const int32_t* ids, int64_t n, uint32_t* weights);

}  // namespace flotilla::FLOTILLA_ISA
