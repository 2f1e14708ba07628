/* Sums of few values over the GPUs of one host: every rank writes its values into the memory of every
 * other's GPU and adds up what it gets, in one short kernel, where NCCL through a non-blocking
 * communicator takes longer to be called than the values to travel.
 *
 * A sum is a kernel of the queue's stream and of its chain (kernels/cuda/chain.cuh). It waits on the
 * device for the same sum of the other ranks, and for nothing else, so for what precedes that sum in
 * their queues. As all ranks enqueue the same in the same order, all of it precedes this rank's sum too
 * and its share here is done: no peer waits for anything that a waiting kernel keeps from running, such
 * as NCCL's kernels on another stream, be they begun before and awaited after. The kernel has so few
 * blocks that all of them run at once.
 *
 * No sum waits for ever: it leaves after the time limit, or once one_shot_abort() was called, with
 * anything in its buffer; one_shot_has_failed() then says so, before a wait for the stream ends.
 *
 * Used by the group's thread; has_failed() and abort() by any. Calls are on one stream. */
#ifndef COMM_NCCL_ONE_SHOT_H
#define COMM_NCCL_ONE_SHOT_H

#include "comm/group.h"

#include <cuda_runtime_api.h>

#include <stdbool.h>

struct one_shot;

/* Collective over `control`, which is borrowed for the call; on this thread's current device.
 * timeout_ms: how long a sum, or a message of this call, waits for peers. *one_shot_out: owned; NULL on
 * all ranks where they are of several hosts or too many, or some rank cannot reach another's memory, which
 * is logged. TCA_ERR_COMM: a peer did not answer; TCA_ERR_NO_MEMORY. */
enum tca_status one_shot_create(struct comm_group *control, int timeout_ms,
                                struct one_shot **one_shot_out);

/* Whether a sum of so many bytes goes this way: the same on all ranks. NULL: none does. */
bool one_shot_takes(const struct one_shot *one_shot, size_t bytes);

/* Enqueue: buf = the sum of all ranks' buf, added in f32 in the order of the ranks and rounded once:
 * every rank gets the same bits. buf: device [count], aligned to its elements; count: at least 1 and
 * as one_shot_takes() allows. */
cudaError_t one_shot_sum(struct one_shot *one_shot, void *buf, size_t count,
                         enum kernel_dtype dtype, cudaStream_t stream);

/* Some sum did not get what it waited for, or abort() was called. NULL: no. */
bool one_shot_has_failed(const struct one_shot *one_shot);
/* Let go what waits on the device. NULL is a no-op. */
void one_shot_abort(struct one_shot *one_shot);
/* Waits for no peer. No peer has a sum with this rank under way, or the group has failed. NULL is a
 * no-op. */
void one_shot_destroy(struct one_shot *one_shot);

#endif
