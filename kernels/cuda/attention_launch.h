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

/* Lists for sdpa.h: device arrays of its shapes. */
struct sdpa_lists_out {
    int64_t *q_offsets, *kv_offsets;
    int32_t *query_counts, *key_counts;
};

/* rows: the segment's keys where it has no rows_per_head. */
void cuda_launch_sdpa_lists(cudaStream_t stream, const struct sdpa_lists_out *lists,
                            const struct attention_segment *segment, int queries, int64_t rows,
                            const struct attention_shape *shape);
/* Heads without keys get zeros and -inf. */
void cuda_launch_fill_keyless(cudaStream_t stream, uint16_t *out, float *lse,
                              const int32_t *key_counts, int queries,
                              const struct attention_shape *shape);

#ifdef __cplusplus
}
#endif

#endif
