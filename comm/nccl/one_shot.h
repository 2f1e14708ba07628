/* Sums of few values over the GPUs of one host: every rank writes its values into the memory of
 * every other's GPU and adds up what it gets, in one short kernel, where NCCL through a
 * non-blocking communicator takes longer to be called than the values to travel.
 *
 * A sum is a kernel of the queue's stream and of its chain (kernels/cuda/chain.cuh). It waits on
 * the device for the same sum of the other ranks, and for nothing else, so for what precedes that
 * sum in their queues. As all ranks enqueue the same in the same order, all of it precedes this
 * rank's sum too and its share here is done: no peer waits for anything that a waiting kernel keeps
 * from running, such as NCCL's kernels on another stream, be they begun before and awaited after.
 * The kernel has so few blocks that all of them run at once.
 *
 * Used by the group's thread. Calls are on one stream. */
#ifndef COMM_NCCL_ONE_SHOT_H
#define COMM_NCCL_ONE_SHOT_H

#include "comm/nccl/peer_memory.h"

#include <cuda_runtime_api.h>

#include <stdbool.h>

/* The fields are private. */
struct one_shot {
    const struct peer_memory *peers; /* borrowed */
    size_t offset;                   /* of what it uses of them */
    uint32_t sequence;               /* of the next sum */
};

/* What it takes of every rank's peer memory. */
size_t one_shot_bytes(int ranks);
/* offset: where that begins, aligned to 16 bytes; equal on all ranks. */
void one_shot_init(struct one_shot *one_shot, const struct peer_memory *peers, size_t offset);

/* Whether a sum of so many bytes is small. */
bool one_shot_takes(size_t bytes);

/* Enqueue: buf = the sum of all ranks' buf, added in f32 in the order of the ranks and rounded
 * once: every rank gets the same bits. buf: device [count], aligned to its elements; count: at
 * least 1 and as one_shot_takes() allows. */
cudaError_t one_shot_sum(struct one_shot *one_shot, void *buf, size_t count,
                         enum kernel_dtype dtype, cudaStream_t stream);

#endif
