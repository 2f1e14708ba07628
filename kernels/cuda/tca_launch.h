/* The launchers of TCA's kernels, as launch.h has those of the forward pass. */
#ifndef KERNELS_CUDA_TCA_LAUNCH_H
#define KERNELS_CUDA_TCA_LAUNCH_H

#include "kernels/backend.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Observing queries against keys; see block_scores and token_scores of kernels/backend.h. */
struct score_launch {
    struct attention_shape shape;
    struct attention_segment keys;
    const uint16_t *q;        /* [.., q_heads, head_dim] */
    const int32_t *observers; /* device [count] */
    int count;
    const float *lse; /* [count, q_heads]; of token scores */
    float *out;
    int multiprocessors;
};

void cuda_launch_block_scores(cudaStream_t stream, const struct score_launch *launch);
void cuda_launch_token_scores(cudaStream_t stream, const struct score_launch *launch);

/* observers: device [count]. */
void cuda_launch_observer_lse(cudaStream_t stream, float *lse_out, const float *scores,
                              const float *lse_own, const int32_t *observers, int count,
                              int q_heads, int64_t blocks);
void cuda_launch_block_masses(cudaStream_t stream, float *masses_out, const float *scores,
                              const float *lse, int count, const struct attention_shape *shape,
                              int64_t blocks);
void cuda_launch_attention_merge_lse(cudaStream_t stream, uint16_t *out, float *lse,
                                     const uint16_t *out_other, const float *lse_other, int rows,
                                     const struct attention_shape *shape);
void cuda_launch_kept_masses(cudaStream_t stream, float *masses_out, const float *lse_kept,
                             const float *lse, int rows, const struct attention_shape *shape);
void cuda_launch_gather(cudaStream_t stream, const struct kv_copy *copy,
                        const struct attention_segment *keys, const int32_t *kept,
                        int64_t kept_stride, const int32_t *counts,
                        const struct attention_shape *shape);

enum { SELECT_HEADS_MAX = 64 };

/* What one head is to keep. */
struct select_head {
    bool is_empty;        /* nothing at all, sinks and window neither */
    bool is_whole;        /* every token */
    int32_t window_first; /* the tokens from here on, beside the sinks */
    int32_t largest;      /* block, pooled: how many of the elements to choose from */
    int32_t left;         /* tca: tokens that its blocks may keep */
    /* tca: blocks from most to least valuable; those before tca_ends[k] keep at least 2^k. */
    int32_t tca_ends[SELECT_TCA_SIZES];
};

/* Passed to the kernels by value. Elements to choose from are tokens 64 .. last_token - 1 (pooled)
 * or blocks 1 .. last_block - 1, those that begin there. */
struct select_launch {
    enum select_rule rule;
    enum select_redundancy redundancy;
    int heads;
    int32_t tokens;
    int32_t last_token;
    int32_t blocks; /* of all tokens */
    int32_t last_block;
    const float *token_scores; /* [heads, tokens] */
    const float *block_masses; /* [heads, blocks] */
    uint32_t *keys;            /* scratch [heads, key_stride] */
    int64_t key_stride;
    uint32_t *marks;   /* scratch [heads, blocks, 2]: a bit a token */
    int32_t *kept_out; /* [heads, kept_stride] */
    int64_t kept_stride;
    int32_t *counts_out; /* [heads] */
    struct select_head head[SELECT_HEADS_MAX];
};

void cuda_launch_select(cudaStream_t stream, const struct select_launch *launch);

void cuda_launch_interleave(cudaStream_t stream, float *out, const float *gathered,
                            const struct kernel_stripes *stripes, int64_t stride, int64_t total);
void cuda_launch_pick(cudaStream_t stream, int32_t *picked_out, int32_t *count_out,
                      const int32_t *kept, const int32_t *count,
                      const struct kernel_stripes *stripes);

#ifdef __cplusplus
}
#endif

#endif
