/* A group whose tensors travel by NCCL between GPUs, and whose control messages take another
 * group's way (MPI's).
 *
 * The communicator is non-blocking: every call is polled against a deadline. A thread of the group
 * watches what is under way; when it does not end in time, or NCCL reports a failure, it aborts
 * the communicator, so that a wait for the queue ends, and every later call fails.
 * A bf16 sum of more than two ranks is rounded by NCCL after each addition.
 *
 * Where all ranks are of one host and its GPUs reach one another, sums of up to 256 KB, and over
 * two ranks of up to 32 MiB, go through the peers' memory (comm/nccl/peer_sums.h) and are rounded
 * once. All sums of a group are enqueued on one queue. The sums of a part made by split() are
 * NCCL's. */
#ifndef COMM_NCCL_COMM_NCCL_H
#define COMM_NCCL_COMM_NCCL_H

#include "base/error.h"
#include "comm/group.h"

/* Which sums are NCCL's: those that cannot go through the peers' memory, or all. */
enum comm_nccl_sums { COMM_NCCL_SUMS_OTHER, COMM_NCCL_SUMS_ALL };

/* Make the group over `device` of each rank, one GPU a rank; collective over `control`, which is
 * borrowed and outlives it. Fails on every rank when it fails on one. timeout_ms: how long a sum,
 * or the making of the group, waits for peers. sums: equal on all ranks. Its queues are the CUDA
 * backend's.
 * TCA_ERR_UNSUPPORTED: this build has no NCCL. */
enum tca_status comm_nccl_create(struct comm_group *control, int device, int timeout_ms,
                                 enum comm_nccl_sums sums, struct comm_group **group_out,
                                 struct tca_error *error);

#endif
