/* The kernel of comm/nccl/pair_sum.h. */
#ifndef COMM_NCCL_PAIR_SUM_KERNEL_H
#define COMM_NCCL_PAIR_SUM_KERNEL_H

#include "comm/nccl/peer_wait.h"
#include "kernels/backend.h"

#include <cuda_runtime_api.h>

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pair_sum_args {
    void *buf;           /* [count] */
    const void *arrived; /* [count] of the peer, once `number` is at least `wanted` */
    const uint32_t *number;
    uint32_t wanted; /* numbers wrap */
    struct peer_wait wait;
    size_t count;
};

/* Enqueue buf += arrived, of f32 or bf16. */
void pair_sum_launch(cudaStream_t stream, const struct pair_sum_args *args,
                     enum kernel_dtype dtype);
/* Enqueue a wait until `number` is at least `wanted`. */
void pair_sum_launch_wait(cudaStream_t stream, const struct pair_sum_args *args);

#ifdef __cplusplus
}
#endif

#endif
