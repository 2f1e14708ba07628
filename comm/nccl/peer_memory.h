/* Memory of every rank's GPU that the GPUs of all others of the host can write to (CUDA IPC), for
 * sums that do without NCCL.
 *
 * A kernel that waits for a peer there leaves after the time limit, or once the group has failed,
 * with anything in its buffer; peer_memory_has_failed() then says so, before a wait for its stream
 * ends. */
#ifndef COMM_NCCL_PEER_MEMORY_H
#define COMM_NCCL_PEER_MEMORY_H

#include "comm/group.h"
#include "comm/nccl/peer_wait.h"

#include <stdbool.h>

struct peer_memory {
    int rank, ranks;
    void *of[PEERS_MOST]; /* each rank's, as this process sees it; zeros at first */
    struct peer_wait wait;
};

/* Collective over `control`, which is borrowed for the call; on this thread's current device.
 * bytes: equal on all ranks. timeout_ms: how long a kernel, or a message of this call, waits for
 * peers. *memory_out: owned; NULL on all ranks where they are of several hosts or too many, or some
 * rank cannot reach another's memory, which is logged. TCA_ERR_COMM: a peer did not answer;
 * TCA_ERR_NO_MEMORY, at which the others get TCA_ERR_COMM after the time limit. */
enum tca_status peer_memory_create(struct comm_group *control, size_t bytes, int timeout_ms,
                                   struct peer_memory **memory_out);

/* Collective over `control`: whether all ranks say so. */
enum tca_status peer_memory_agree(struct comm_group *control, bool own, int timeout_ms,
                                  bool *all_out);

/* By any thread. Some kernel did not get what it waited for, or abort() was called. NULL: no. */
bool peer_memory_has_failed(const struct peer_memory *memory);
/* By any thread: let go what waits on the device. NULL is a no-op. */
void peer_memory_abort(struct peer_memory *memory);
/* Waits for no peer. No peer has a sum with this rank under way, or the group has failed. NULL is a
 * no-op. */
void peer_memory_destroy(struct peer_memory *memory);

#endif
