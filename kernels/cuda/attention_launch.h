/* The attention kernels' launchers; see attention_plan.h for what a launch is. */
#ifndef KERNELS_CUDA_ATTENTION_LAUNCH_H
#define KERNELS_CUDA_ATTENTION_LAUNCH_H

#include "kernels/cuda/attention_plan.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A row of partial sums is [head_dim] sums of values, the largest score (log2) and the sum. */
enum { ATTENTION_PARTIAL_EXTRA = 2 };

struct attention_tensors {
    uint16_t *out;     /* [rows, q_heads, head_dim] */
    float *lse;        /* [rows, q_heads] or NULL */
    const uint16_t *q; /* [rows, q_heads, head_dim] */
    float *partials;   /* [partial rows, head_dim + ATTENTION_PARTIAL_EXTRA] */
};

void cuda_launch_attention(cudaStream_t stream, const struct attention_launch *launch,
                           const struct attention_tensors *tensors);
void cuda_launch_attention_merge(cudaStream_t stream, const struct attention_launch *launch,
                                 const struct attention_tensors *tensors);

#ifdef __cplusplus
}
#endif

#endif
