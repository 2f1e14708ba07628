/* Runs a model on a group of ranks without a coordinator, for measuring, evaluating and
 * calibrating: processes under mpirun, or threads of this process. The steps are those of
 * tca-worker. */
#ifndef WORKER_GROUP_RUN_H
#define WORKER_GROUP_RUN_H

#include "comm/group.h"
#include "worker/engine.h"
#include "worker/lockstep.h"
#include "worker/model_shard.h"
#include "worker/rank_device.h"

#include <stdbool.h>
#include <stdint.h>

struct group_run;

typedef enum tca_status (*group_run_fn)(void *context, const struct group_run *run);

struct group_run_options {
    const char *model_folder;
    int local_ranks; /* threads of this process; 0: this process is one rank of an MPI world */
    int threads;     /* of a rank, 0: the cores shared by all ranks */
    int64_t kv_memory_bytes; /* of a rank, 0: by what is free */
    int chunk_tokens;        /* 0: by the device */
    int64_t max_positions; /* of one sequence; 0: the model's, which only dummy weights may pass */
    int64_t window_tokens; /* of every selection; 0: the default */
    int64_t refresh_every; /* 0: never */
    const char *profile;   /* file; NULL: the model folder's */
    int stripe_unit;       /* tokens; 0: the default */
    int max_sequences;
    bool has_dummy_weights;
    enum device_wish device;              /* local_ranks > 1: the CPU */
    enum comm_nccl_sums nccl_sums;        /* on GPUs */
    const struct kernel_backend *backend; /* NULL: that of `device` */
    /* Called on every rank, or NULL: once the model is loaded, and after the last step when all
     * went well. They may use the group's collectives; a failure on one
     * rank is a failure of all. */
    group_run_fn start, finish;
};

/* What a rank works with; ranks, threads and chunks as they turned out. */
struct group_run {
    struct comm_group *control; /* borrowed */
    struct model_shard *shard;
    struct lockstep *lockstep;
    const struct kernel_backend *backend;
    int ranks;
    int threads;
    int chunk_tokens;
};

/* Load the model on every rank, call `lead` on rank 0 while the others follow, end the group. Any
 * failure was logged. Ranks that are threads share `context`. */
enum tca_status group_run(const struct group_run_options *options, group_run_fn lead,
                          void *context);

/* Longest wait for another rank. */
enum { GROUP_RUN_TIMEOUT_MS = 10 * 60 * 1000 };

#endif
