/* A CUDA stream with what its operations need beside it: all of it is made at start, so that an
 * operation allocates nothing. Used by one thread, whose current device it is. */
#ifndef KERNELS_CUDA_CUDA_QUEUE_H
#define KERNELS_CUDA_CUDA_QUEUE_H

#include "kernels/backend.h"
#include "kernels/cuda/staging.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

struct algorithm_cache;
struct sdpa;

enum {
    MATMUL_WORKSPACE_BYTES = 32 << 20, /* what NVIDIA recommends for Hopper */
    SCRATCH_BYTES = 96 << 20,
    SHARED_BYTES = 16 << 20, /* the end of scratch: attention to rows that several items share */
};

struct cuda_queue {
    struct kernel_queue base;
    cudaStream_t stream;
    int multiprocessors;
    struct staging staging;
    cublasLtHandle_t blas;
    void *matmul_workspace; /* device, owned: MATMUL_WORKSPACE_BYTES */
    struct algorithm_cache *algorithms;
    struct sdpa *sdpa; /* owned; NULL without cuDNN */
    /* Device, owned: SCRATCH_BYTES. An operation may leave nothing there: a selection's keys and
     * marks, the candidates of pieces of logits; of attention, from the beginning on, partial sums
     * of what is split by keys, or cuDNN's lists and behind them what is packed for it, and in the
     * last SHARED_BYTES what items find in rows that they share. */
    void *scratch;
    uint16_t *bias;    /* device, owned, grown by weight_create: the longest bias as bf16 */
    size_t bias_count; /* elements */
    void *top;         /* device, owned: TOP_BYTES, results of logits_top */
    void *top_host;    /* pinned, owned: the same */
};

static inline struct cuda_queue *cuda_queue_from(struct kernel_queue *queue)
{
    return (struct cuda_queue *)queue;
}

enum { TOP_BYTES = 4 << 20 };

#endif
