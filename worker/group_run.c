#include "worker/group_run.h"

#include "base/log.h"
#include "comm/local/comm_local.h"
#include "comm/mpi/comm_mpi.h"

#include <pthread.h>
#include <stdlib.h>

enum { RANKS_MAX = 256 };

/* One rank and what it needs, for its thread. */
struct rank {
    struct comm_group *group;
    const struct group_run_options *options;
    group_run_fn lead;
    void *context;
    enum tca_status status; /* out */
    bool is_in_step;        /* out: all ranks ended in agreement, whatever the status */
};

/* The CPU's, or a test's own, for everything that lives in host memory. */
static const struct kernel_backend *host_backend(const struct group_run_options *options)
{
    return options->backend == NULL ? kernel_backend_cpu() : options->backend;
}

static enum tca_status open_device(const struct rank *rank, struct rank_device *device_out,
                                   struct tca_error *error)
{
    const struct group_run_options *options = rank->options;
    struct rank_hosts hosts;
    enum tca_status status;

    if (options->backend != NULL || options->local_ranks > 1) {
        if (options->device == DEVICE_CUDA)
            return tca_fail(error, TCA_ERR_INVALID,
                            "device cuda: ranks on GPUs are processes under mpirun");
        *device_out = (struct rank_device){.backend = host_backend(options),
                                           .ranks_on_device = rank->group->ranks,
                                           .control = rank->group,
                                           .group = rank->group};
        return TCA_OK;
    }
    status = rank_hosts_init(&hosts, rank->group, GROUP_RUN_TIMEOUT_MS);
    if (status == TCA_OK)
        status = rank_device_open(options->device, rank->group, &hosts, GROUP_RUN_TIMEOUT_MS,
                                  options->nccl_sums, device_out, error);
    else
        tca_fail(error, status, "naming the hosts: %s", tca_status_text(status));
    rank_hosts_deinit(&hosts);
    return status;
}

/* The model on every rank, or a failure on all. */
static enum tca_status load(const struct rank *rank, struct rank_device *device,
                            struct group_run *run)
{
    const struct group_run_options *options = rank->options;
    struct model_shard_options shard = {.model_folder = options->model_folder,
                                        .threads =
                                            rank_threads(options->threads, rank->group->ranks),
                                        .kv_memory_bytes = (size_t)options->kv_memory_bytes,
                                        .max_sequences = options->max_sequences,
                                        .max_positions = options->max_positions,
                                        .window_tokens = options->window_tokens,
                                        .refresh_every = options->refresh_every,
                                        .profile = options->profile,
                                        .stripe_unit = options->stripe_unit,
                                        .has_dummy_weights = options->has_dummy_weights,
                                        .timeout_ms = GROUP_RUN_TIMEOUT_MS};
    struct tca_error error = {.text = ""};
    enum tca_status status = open_device(rank, device, &error);

    *run = (struct group_run){
        .control = rank->group, .ranks = rank->group->ranks, .threads = shard.threads};
    if (status == TCA_OK) {
        shard.backend = run->backend = device->backend;
        shard.chunk_tokens = run->chunk_tokens =
            options->chunk_tokens == 0 ? device->backend->step_rows : options->chunk_tokens;
        shard.device = device->index;
        shard.ranks_on_device = device->ranks_on_device;
        status = model_shard_create(&shard, device->group, &run->shard, &error);
    }
    if (status != TCA_OK)
        log_error("rank %d: %s", rank->group->rank, error.text);
    else
        status = lockstep_create(device->group, run->shard, GROUP_RUN_TIMEOUT_MS, &run->lockstep);
    return lockstep_agree(rank->group, status, GROUP_RUN_TIMEOUT_MS);
}

/* A hook on every rank, or a failure on all. */
static enum tca_status run_hook(const struct rank *rank, group_run_fn hook,
                                const struct group_run *run)
{
    if (hook == NULL)
        return TCA_OK;
    return lockstep_agree(rank->group, hook(rank->context, run), GROUP_RUN_TIMEOUT_MS);
}

static enum tca_status run_rank(struct rank *rank)
{
    struct rank_device device = {0};
    struct group_run run;
    enum tca_status status = load(rank, &device, &run);

    if (status == TCA_OK)
        status = run_hook(rank, rank->options->start, &run);
    rank->is_in_step = status != TCA_ERR_COMM;
    if (status == TCA_OK && rank->group->rank == 0) {
        status = rank->lead(rank->context, &run);
        rank->is_in_step =
            lockstep_end(run.lockstep, status == TCA_OK ? STEP_END_STOP : STEP_END_FAILURE) ==
            TCA_OK;
        if (status == TCA_OK && !rank->is_in_step)
            status = TCA_ERR_COMM;
    } else if (status == TCA_OK) {
        status = lockstep_follow(run.lockstep);
        rank->is_in_step = status == TCA_OK || status == TCA_ERR_ABORTED;
    }
    if (status == TCA_OK && rank->is_in_step) {
        status = run_hook(rank, rank->options->finish, &run);
        rank->is_in_step = status != TCA_ERR_COMM;
    }
    lockstep_destroy(run.lockstep);
    model_shard_destroy(run.shard);
    rank_device_close(&device);
    return status;
}

static void *run_thread(void *argument)
{
    struct rank *rank = argument;

    rank->status = run_rank(rank);
    if (!rank->is_in_step)
        rank->group->ops->abort(rank->group);
    rank->group->ops->destroy(rank->group);
    return NULL;
}

/* Every rank but 0 in a thread of its own. */
static enum tca_status run_local(const struct group_run_options *options, struct rank *ranks)
{
    struct comm_group *groups[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    int started = 1;

    TCA_TRY(comm_local_create(host_backend(options), options->local_ranks, GROUP_RUN_TIMEOUT_MS,
                              groups));
    for (int i = 0; i < options->local_ranks; i++)
        ranks[i].group = groups[i];
    while (started < options->local_ranks &&
           pthread_create(&threads[started], NULL, run_thread, &ranks[started]) == 0)
        started++;
    for (int i = started; i < options->local_ranks; i++) {
        groups[i]->ops->abort(groups[i]);
        groups[i]->ops->destroy(groups[i]);
    }
    run_thread(&ranks[0]);
    for (int i = 1; i < started; i++)
        pthread_join(threads[i], NULL);
    return ranks[0].status;
}

enum tca_status group_run(const struct group_run_options *options, group_run_fn lead, void *context)
{
    struct rank ranks[RANKS_MAX];
    struct rank rank = {.options = options, .lead = lead, .context = context};

    if (options->local_ranks > RANKS_MAX)
        return TCA_ERR_INVALID;
    if (options->local_ranks > 0) {
        for (int i = 0; i < options->local_ranks; i++)
            ranks[i] = rank;
        return run_local(options, ranks);
    }
    TCA_TRY(comm_mpi_create(host_backend(options), GROUP_RUN_TIMEOUT_MS, &rank.group));
    run_thread(&rank);
    return rank.status;
}
