/* The kernel of comm/nccl/one_shot.h.
 *
 * Values travel in lines of two words of 64 bits: 32 bits of values, then the number of the sum. A
 * word is written and read as one, so that who finds the number has the
 * values, without any fence. */
#ifndef COMM_NCCL_ONE_SHOT_KERNEL_H
#define COMM_NCCL_ONE_SHOT_KERNEL_H

#include "comm/nccl/peer_wait.h"
#include "kernels/backend.h"

#include <cuda_runtime_api.h>

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ONE_SHOT_BYTES = 256 << 10, /* of values */
    ONE_SHOT_LINE_VALUES = 8,   /* bytes of values in a line */
    ONE_SHOT_LINE_BYTES = 16,
    ONE_SHOT_SLOT_BYTES = ONE_SHOT_BYTES / ONE_SHOT_LINE_VALUES * ONE_SHOT_LINE_BYTES,
};

struct one_shot_args {
    void *buf;            /* [count] */
    void *to[PEERS_MOST]; /* [lines] in the memory of each rank, for what this one sends */
    /* [lines] in this rank's memory, by the rank that sends them; its own is not used. */
    const void *from[PEERS_MOST];
    struct peer_wait wait;
    uint32_t sequence; /* of the sum; not 0 */
    int rank, ranks;
    int count;
};

/* Enqueue a sum of f32 or bf16. */
void one_shot_launch(cudaStream_t stream, const struct one_shot_args *args,
                     enum kernel_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
