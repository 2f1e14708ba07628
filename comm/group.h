/* The ranks that share one model: tensor collectives on device memory, and small control
 * messages on host memory.
 * Implementations: comm/mpi (CPU), comm/nccl (GPU), comm/local (threads of one process, tests).
 *
 * Used by one thread a rank (the engine's). Every rank issues the same calls in the same order.
 * No call waits for a peer longer than its deadline: a lost or stuck peer becomes TCA_ERR_COMM,
 * after which only destroy() is legal. Tensor collectives are enqueued on `queue` and may return
 * before they finish. */
#ifndef COMM_GROUP_H
#define COMM_GROUP_H

#include "base/status.h"
#include "kernels/backend.h"

#include <stddef.h>
#include <stdint.h>

struct comm_ops;

enum { COMM_RANKS_MAX = 256, COMM_SLOTS = 2 /* sums under way at a time */ };

/* An implementation embeds this as the first member of its own group type. */
struct comm_group {
    const struct comm_ops *ops;
    int rank;
    int ranks;
    /* Parts of a sum that each rank's contribution already holds, in the order of the ranks:
     * all_reduce_sum adds them by base/sum_tree.h. 0 counts as 1. Equal on all ranks; set by the
     * group's user before its first sum. */
    int parts[COMM_RANKS_MAX];
    /* What this rank has sent through this group's tensor collectives, as its peers need it and not
     * as a transport happens to move it: all_gather and all_to_all count their `bytes` for every
     * peer, a sum of b bytes counts 2 b (ranks - 1) / ranks (every rank sums a part and spreads
     * it). A group made by split() counts its own. */
    uint64_t sent_bytes;
};

struct comm_ops {
    const char *name;

    /* Sum over ranks, in place. buf: device [count]; bf16 is summed in f32. Every rank gets the
     * same bits; comm/local and comm/mpi add by base/sum_tree.h over `parts`. Waits for peers as
     * long as the group's creator said. */
    enum tca_status (*all_reduce_sum)(struct comm_group *group, void *buf, size_t count,
                                      enum kernel_dtype dtype, struct kernel_queue *queue);

    /* all_reduce_sum in two calls, for a sum beside what is enqueued between them. begin: sum what
     * is in buf once `queue` comes here. await: what is enqueued from now on finds the sum in buf,
     * which nothing reads or writes between. With rest_out it may leave the last addition to who
     * reads the sum: buf + *rest_out, device [count], there until the slot is begun anew; or NULL:
     * it is in buf. slot: 0 .. COMM_SLOTS - 1, each begun anew only after its await. Other
     * collectives may come between. Either call may be the one that waits for peers, fails, and
     * counts the bytes sent. */
    enum tca_status (*all_reduce_begin)(struct comm_group *group, int slot, void *buf, size_t count,
                                        enum kernel_dtype dtype, struct kernel_queue *queue);
    enum tca_status (*all_reduce_await)(struct comm_group *group, int slot,
                                        struct kernel_queue *queue, const void **rest_out);

    /* recv[r] = what rank r sends. recv: device [ranks, bytes]; send: device [bytes], apart from
     * recv or this rank's own place in it. Waits as all_reduce_sum does. */
    enum tca_status (*all_gather)(struct comm_group *group, void *recv, const void *send,
                                  size_t bytes, struct kernel_queue *queue);

    /* recv[r] = send[own rank] of rank r. recv, send: device [ranks, bytes_per_rank], apart. Waits
     * as all_reduce_sum does. */
    enum tca_status (*all_to_all)(struct comm_group *group, void *recv, const void *send,
                                  size_t bytes_per_rank, struct kernel_queue *queue);

    /* Cut the group into parts of consecutive ranks, this rank's being [first, first + ranks): a
     * group with ranks of its own from 0, `parts` of 1, and the deadlines of this one. Every rank
     * calls it, and the parts hold every rank once; a failure may be this rank's alone. A part and
     * its group are used by one thread, one call at a time, and fail together. Destroyed before
     * this group. TCA_ERR_INVALID, TCA_ERR_NO_MEMORY, TCA_ERR_COMM. */
    enum tca_status (*split)(struct comm_group *group, int first, int ranks,
                             struct comm_group **part_out);

    /* Control plane: host memory, blocking. `bytes` is equal on all ranks. */
    enum tca_status (*broadcast)(struct comm_group *group, void *buf, size_t bytes, int root,
                                 int timeout_ms);
    /* recv: [ranks, bytes] at root, else NULL. */
    enum tca_status (*gather)(struct comm_group *group, void *recv, const void *send, size_t bytes,
                              int root, int timeout_ms);

    /* TCA_ERR_COMM once a peer died or the fabric failed. */
    enum tca_status (*poll_error)(struct comm_group *group);
    /* Tell the peers that this rank gives up; pending and later calls fail everywhere. With MPI
     * it ends the processes of all ranks and does not return. */
    void (*abort)(struct comm_group *group);
    /* Collective, but after a failure it waits for nobody. NULL is a no-op. */
    void (*destroy)(struct comm_group *group);
};

#endif
