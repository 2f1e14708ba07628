/* Sums of many values over two GPUs that can write to each other's memory: the copy engines
 * exchange the values beside what is computed, taking no multiprocessor from it, and each rank adds
 * what it gets. A product whose blocks are one for every multiprocessor would wait for those that
 * NCCL's kernels hold.
 *
 * A begun sum is copied on a stream of its own; the add, on the queue's stream, waits on the device
 * for the peer's copy, which is begun on the other side by the same call: nothing that waits here
 * keeps it from running. The wait ends as comm/nccl/peer_memory.h says.
 *
 * Used by the group's thread. */
#ifndef COMM_NCCL_PAIR_SUM_H
#define COMM_NCCL_PAIR_SUM_H

#include "comm/nccl/peer_memory.h"

#include <cuda_runtime_api.h>

#include <stdbool.h>

enum {
    PAIR_SUM_SLOTS = COMM_SLOTS + 1, /* the last: of sums that are not begun and awaited */
    PAIR_SUM_BYTES = 32 << 20,       /* of values of one sum */
};

struct pair_sum;

/* What it takes of each rank's peer memory. */
size_t pair_sum_bytes(void);
/* peers: borrowed, of two ranks. offset: where its part of them begins, aligned to 256 bytes; equal
 * on both. *pair_out: owned; NULL where the driver writes no numbers to the peer's memory (stream
 * memory operations). TCA_ERR_NO_MEMORY, TCA_ERR_DEVICE. */
enum tca_status pair_sum_create(const struct peer_memory *peers, size_t offset,
                                struct pair_sum **pair_out);
void pair_sum_destroy(struct pair_sum *pair); /* NULL is a no-op */

/* Enqueue a copy of buf, once `stream` comes here, to the peer. buf: device [count], aligned to 16
 * bytes, of at most PAIR_SUM_BYTES; nothing writes to it until the slot's await. */
cudaError_t pair_sum_begin(struct pair_sum *pair, int slot, void *buf, size_t count,
                           enum kernel_dtype dtype, cudaStream_t stream);
/* Enqueue on `stream`: the buffer of the slot's begun sum = the sum, added in f32 and rounded once:
 * the same bits on both ranks. With rest_out: a wait alone, for *rest_out, which is to be added. */
cudaError_t pair_sum_await(struct pair_sum *pair, int slot, cudaStream_t stream,
                           const void **rest_out);

#endif
