#include "worker/worker.h"

#include "base/log.h"
#include "worker/control_link.h"
#include "worker/engine.h"
#include "worker/lockstep.h"
#include "worker/rank_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LOAD_TIMEOUT_MS = 30 * 60 * 1000, /* ranks read their weights at their own pace */
    WELCOME_WAIT_MS = 90 * 1000,      /* rank 0's handshake, beyond its connecting */
    IDLE_STEP_MS = 1000,              /* rank 0 hears of every rank at least so often */
    MESSAGES_PER_STEP = 64,
};

struct worker {
    struct comm_group *group;
    const struct worker_options *options;
    struct group_settings settings;
    struct rank_hosts hosts;
    struct rank_device device;
    struct model_shard *shard;
    struct lockstep *lockstep;
    struct rank_report report;
    struct rank_report *reports;  /* owned [ranks]; filled on rank 0 */
    struct control_link *link;    /* rank 0 */
    struct engine *engine;        /* rank 0 */
    struct bytes message;         /* rank 0: scratch */
    enum tca_status event_status; /* rank 0: of handing events to the link */
};

/* Every rank learns every rank's host. */
static enum tca_status share_hosts(struct worker *worker)
{
    struct comm_group *group = worker->group;

    worker->reports = calloc((size_t)group->ranks, sizeof(*worker->reports));
    if (worker->reports == NULL)
        return TCA_ERR_NO_MEMORY;
    TCA_TRY(rank_hosts_init(&worker->hosts, group, worker->options->step_timeout_ms));
    memcpy(worker->report.host, worker->hosts.name[group->rank], sizeof(worker->report.host));
    return TCA_OK;
}

/* Rank 0 attaches; every rank gets the settings, or learns that there are none. */
static enum tca_status share_settings(struct worker *worker)
{
    const struct worker_options *options = worker->options;
    struct comm_group *group = worker->group;
    struct control_link_options link = {.coordinator = options->coordinator,
                                        .secret = options->secret,
                                        .version = options->version,
                                        .ranks = group->ranks,
                                        .connect_timeout_ms = options->connect_timeout_ms};
    struct tca_error error;
    enum tca_status status = TCA_OK;

    if (group->rank == 0) {
        status = control_link_open(&link, &worker->link, &worker->settings, &error);
        worker->settings.is_refused = status != TCA_OK;
        if (status != TCA_OK)
            log_error("%s", error.text);
    }
    TCA_TRY(group->ops->broadcast(group, &worker->settings, sizeof(worker->settings), 0,
                                  options->connect_timeout_ms + WELCOME_WAIT_MS));
    if (status == TCA_OK && worker->settings.is_refused)
        return TCA_ERR_ABORTED;
    return status;
}

static enum device_wish device_wish(const struct worker *worker)
{
    switch ((enum control_device)worker->settings.device) {
    case CONTROL_DEVICE_CPU:
        return DEVICE_CPU;
    case CONTROL_DEVICE_CUDA:
        return DEVICE_CUDA;
    case CONTROL_DEVICE_AUTO:
        break;
    }
    return DEVICE_AUTO;
}

static void describe_device(struct worker *worker, int threads)
{
    const struct rank_device *device = &worker->device;

    if (device->backend == kernel_backend_cpu())
        snprintf(worker->report.device, sizeof(worker->report.device), "%s, %d thread%s",
                 device->backend->name, threads, threads == 1 ? "" : "s");
    else
        snprintf(worker->report.device, sizeof(worker->report.device), "%s %d",
                 device->backend->name, device->index);
}

static enum tca_status load(struct worker *worker, struct tca_error *error)
{
    struct model_shard_options options = {
        .model_folder = worker->settings.model_folder,
        .kv_memory_bytes = (size_t)worker->settings.kv_memory_bytes,
        .max_sequences = worker->settings.max_sequences,
        .has_dummy_weights = worker->settings.has_dummy_weights != 0,
        .max_positions = worker->settings.max_positions,
        .window_tokens = worker->settings.window_tokens,
        .refresh_every = worker->settings.refresh_every,
        .profile = worker->settings.profile,
        .timeout_ms = worker->options->step_timeout_ms};

    TCA_TRY(rank_device_open(device_wish(worker), worker->group, &worker->hosts,
                             worker->options->step_timeout_ms, COMM_NCCL_SUMS_OTHER,
                             &worker->device, error));
    if (worker->settings.chunk_tokens == 0)
        worker->settings.chunk_tokens = worker->device.backend->step_rows;
    options.chunk_tokens = worker->settings.chunk_tokens;
    options.backend = worker->device.backend;
    options.device = worker->device.index;
    options.ranks_on_device = worker->device.ranks_on_device;
    options.threads = rank_threads(worker->settings.threads, worker->hosts.own_ranks);
    describe_device(worker, options.threads);
    TCA_TRY(model_shard_create(&options, worker->device.group, &worker->shard, error));
    worker->report.facts = *model_shard_facts(worker->shard);
    if (lockstep_create(worker->device.group, worker->shard, worker->options->step_timeout_ms,
                        &worker->lockstep) != TCA_OK)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the step plan");
    log_info("rank %d: %s on %s, %d tokens a prefill step, %zu bytes of weights, %zu of workspace, "
             "%zu for KV: %lld tokens",
             worker->group->rank, worker->report.device, worker->report.host, options.chunk_tokens,
             worker->report.facts.weight_bytes, worker->report.facts.workspace_bytes,
             worker->report.facts.kv_bytes, (long long)worker->report.facts.kv_capacity_tokens);
    return TCA_OK;
}

/* Tell the coordinator why the group ends; it may be gone itself. */
static void send_failure(struct worker *worker, const char *text)
{
    if (worker->link != NULL && control_pack_failure(text, &worker->message) == TCA_OK)
        control_link_send(worker->link, &worker->message);
}

/* Rank 0: the first rank that could not load is the group's failure. */
static void send_load_failure(struct worker *worker)
{
    char text[TCA_ERROR_TEXT_BYTES + 32];

    for (int rank = 0; rank < worker->group->ranks; rank++) {
        if (worker->reports[rank].status == TCA_OK)
            continue;
        snprintf(text, sizeof(text), "rank %d: %s", rank, worker->reports[rank].message);
        send_failure(worker, text);
        return;
    }
}

/* Load everywhere; all ranks leave with a failure when one cannot. */
static enum tca_status load_together(struct worker *worker)
{
    struct comm_group *group = worker->group;
    struct tca_error error = {.text = ""};
    enum tca_status status = load(worker, &error);

    worker->report.status = status;
    memcpy(worker->report.message, error.text, sizeof(error.text));
    if (status != TCA_OK)
        log_error("rank %d: %s", group->rank, error.text);
    TCA_TRY(group->ops->gather(group, group->rank == 0 ? worker->reports : NULL, &worker->report,
                               sizeof(worker->report), 0, LOAD_TIMEOUT_MS));
    status = lockstep_agree(group, status, LOAD_TIMEOUT_MS);
    if (status != TCA_OK && group->rank == 0)
        send_load_failure(worker);
    return status;
}

static void hand_on_event(void *context, const struct engine_event *event)
{
    struct worker *worker = context;

    if (worker->event_status == TCA_OK)
        worker->event_status = control_pack_event(event, &worker->message);
    if (worker->event_status == TCA_OK)
        worker->event_status = control_link_send(worker->link, &worker->message);
}

static enum tca_status begin_leading(struct worker *worker)
{
    const struct model_config *config = model_shard_config(worker->shard);
    struct engine_options options = {.chunk_tokens = worker->settings.chunk_tokens,
                                     .max_sequences = worker->settings.max_sequences,
                                     .max_positions = config->max_positions};

    if (worker->settings.max_positions != 0 &&
        worker->settings.max_positions < options.max_positions)
        options.max_positions = worker->settings.max_positions;
    TCA_TRY(engine_create(&options, worker->lockstep, worker->shard, hand_on_event, worker,
                          &worker->engine));
    TCA_TRY(control_pack_ready(worker->reports, worker->group->ranks, &worker->message));
    TCA_TRY(control_link_send(worker->link, &worker->message));
    control_link_answered(worker->link, 0);
    return TCA_OK;
}

/* Hand the engine what has arrived; waits for the first message when there is nothing to run. */
static enum tca_status take_messages(struct worker *worker, bool is_busy, bool *is_stop_out)
{
    struct bytes message = {0};
    struct tca_error error;
    enum tca_status status = TCA_OK;

    *is_stop_out = false;
    for (int i = 0; i < MESSAGES_PER_STEP && status == TCA_OK && !*is_stop_out; i++) {
        status =
            control_link_receive(worker->link, i == 0 && !is_busy ? IDLE_STEP_MS : 0, &message);
        if (status == TCA_ERR_NOT_FOUND)
            log_error("the coordinator is gone");
        if (status != TCA_OK)
            continue;
        status = control_apply(&message, worker->engine, is_stop_out, &error);
        if (status != TCA_OK) {
            log_error("%s", error.text);
            send_failure(worker, error.text);
        }
    }
    bytes_free(&message);
    return status == TCA_ERR_DEADLINE ? TCA_OK : status;
}

/* Steps until Stop, or until the coordinator or a rank is lost. */
static enum tca_status lead_steps(struct worker *worker)
{
    struct comm_group *group = worker->device.group;
    bool is_busy = false;
    bool is_stop = false;
    uint64_t steps = 0;

    while (true) {
        TCA_TRY(take_messages(worker, is_busy, &is_stop));
        if (is_stop)
            return TCA_OK;
        TCA_TRY(group->ops->poll_error(group));
        TCA_TRY(engine_step(worker->engine, &is_busy));
        control_link_answered(worker->link, ++steps);
        /* Cancelled: the link is down, and what it brought last says whether that was wanted. */
        if (worker->event_status != TCA_ERR_CANCELLED)
            TCA_TRY(worker->event_status);
    }
}

/* Rank 0: lead, then let the others go. *is_in_step_out: they have gone. */
static enum tca_status lead(struct worker *worker, bool *is_in_step_out)
{
    enum tca_status status = begin_leading(worker);
    char text[TCA_ERROR_TEXT_BYTES];

    if (status == TCA_OK)
        status = lead_steps(worker);
    *is_in_step_out = lockstep_end(worker->lockstep,
                                   status == TCA_OK ? STEP_END_STOP : STEP_END_FAILURE) == TCA_OK;
    if (*is_in_step_out)
        return status;
    snprintf(text, sizeof(text), "a step failed: %s", tca_status_text(status));
    send_failure(worker, text);
    return status == TCA_OK ? TCA_ERR_COMM : status;
}

static void release(struct worker *worker)
{
    engine_destroy(worker->engine);
    control_link_close(worker->link);
    lockstep_destroy(worker->lockstep);
    model_shard_destroy(worker->shard);
    bytes_free(&worker->message);
    free(worker->reports);
    rank_device_close(&worker->device);
    rank_hosts_deinit(&worker->hosts);
}

/* *is_in_step_out: all ranks have ended in agreement, whatever the status. */
static enum tca_status run(struct worker *worker, bool *is_in_step_out)
{
    enum tca_status status;

    *is_in_step_out = false;
    TCA_TRY(share_hosts(worker));
    status = share_settings(worker);
    *is_in_step_out = status != TCA_ERR_COMM;
    TCA_TRY(status);
    status = load_together(worker);
    *is_in_step_out = status != TCA_ERR_COMM;
    TCA_TRY(status);
    if (worker->group->rank == 0)
        return lead(worker, is_in_step_out);
    status = lockstep_follow(worker->lockstep);
    *is_in_step_out = status == TCA_OK || status == TCA_ERR_ABORTED;
    return status;
}

enum tca_status worker_run(struct comm_group *group, const struct worker_options *options)
{
    struct worker worker = {.group = group, .options = options};
    bool is_in_step;
    enum tca_status status = run(&worker, &is_in_step);

    /* The link goes first: its last words must be out before an abort ends this process. */
    release(&worker);
    if (!is_in_step)
        group->ops->abort(group);
    return status;
}
