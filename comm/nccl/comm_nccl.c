#include "comm/nccl/comm_nccl.h"

#include "base/clock.h"
#include "base/log.h"
#include "comm/nccl/peer_sums.h"
#include "comm/reduce.h"
#include "kernels/cuda/cuda_queue.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WATCH_MS = 50, EVENTS = COMM_SLOTS + 3 };

/* A part made by split() has a communicator, a watcher and control messages of its own. */
struct nccl_group {
    struct comm_group base;
    struct nccl_group *whole;   /* what it is a part of, borrowed; NULL: of nothing */
    struct comm_group *control; /* borrowed; a part's: owned */
    int device;
    int timeout_ms;
    /* NCCL's begun sums run here, beside the queue's stream. It runs the operations of a
     * communicator in the order of the calls, whatever their streams, so that the end of the last
     * one enqueued is the end of them all. */
    cudaStream_t side;              /* owned */
    cudaEvent_t ready;              /* owned: the queue's stream has filled the buffer of a sum */
    cudaEvent_t summed[COMM_SLOTS]; /* owned: behind the slot's sum */
    cudaEvent_t marker;             /* owned: behind the sums that were enqueued up to marked_ms */
    cudaEvent_t latest;             /* owned: behind the last sum; the next marker */
    /* Owned: for what does not go by NCCL; NULL: all does, as in a part. Has a time limit of its
     * own. */
    struct peer_sums *peer_sums;
    bool is_by_peer[COMM_SLOTS]; /* the slot's begun sum */
    pthread_t watcher;
    bool has_watcher;

    /* Guards what follows. Nothing is enqueued by CUDA's own calls under it: where a stream has no
     * room for more, that waits for the device, which may wait for a peer until the watcher lets it
     * go. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    ncclComm_t comm; /* owned; NULL once aborted */
    bool has_failed;
    bool is_marked; /* the marker was not seen to pass */
    bool has_later; /* sums were enqueued behind the marker */
    bool is_stopping;
    int64_t marked_ms;
    int64_t recorded_since_ms; /* `latest` is being recorded since then; 0: it is not */
};

/* With the mutex held. Sums through peers are let go when all know that what they leave must not be
 * used. */
static void note_failure(struct nccl_group *group, const char *what, const char *why)
{
    if (!group->has_failed)
        log_error("rank %d: %s: %s", group->base.rank, what, why);
    group->has_failed = true;
    peer_sums_abort(group->peer_sums);
}

/* With the mutex held, except while NCCL aborts: that may wait for what a part has on the device,
 * and the part's watcher, which lets it go, asks this group whether it has failed. */
static void abort_comm(struct nccl_group *group)
{
    ncclComm_t comm = group->comm;

    group->comm = NULL;
    if (comm == NULL)
        return;
    pthread_mutex_unlock(&group->mutex);
    (void)ncclCommAbort(comm);
    pthread_mutex_lock(&group->mutex);
}

/* With the mutex held. A part's mutex is always taken before its whole's.
 * The whole knows before the part's work is let go, for what that leaves must not be used; and is
 * aborted after it, for an abort may wait for what is on the device. */
static enum tca_status fail(struct nccl_group *group, const char *what, const char *why)
{
    struct nccl_group *whole = group->whole;

    if (whole != NULL) {
        pthread_mutex_lock(&whole->mutex);
        note_failure(whole, what, why);
        pthread_mutex_unlock(&whole->mutex);
    }
    note_failure(group, what, why);
    abort_comm(group);
    if (whole != NULL) {
        pthread_mutex_lock(&whole->mutex);
        abort_comm(whole);
        pthread_mutex_unlock(&whole->mutex);
    }
    return TCA_ERR_COMM;
}

/* A non-blocking communicator answers "in progress"; ask until it is
 * through. With the mutex held. */
static enum tca_status finish(struct nccl_group *group, ncclResult_t result, const char *what)
{
    const int64_t deadline_ms = clock_monotonic_ms() + group->timeout_ms;

    while (result == ncclInProgress) {
        ncclResult_t asked = ncclCommGetAsyncError(group->comm, &result);

        if (asked != ncclSuccess)
            result = asked;
        if (result == ncclInProgress && clock_monotonic_ms() > deadline_ms)
            return fail(group, what, "no answer from the peers in time");
        sched_yield();
    }
    return result == ncclSuccess ? TCA_OK : fail(group, what, ncclGetErrorString(result));
}

/* Watch what was enqueued last. With the mutex held. */
static void mark(struct nccl_group *group)
{
    cudaEvent_t passed = group->marker;

    group->marker = group->latest;
    group->latest = passed;
    group->is_marked = true;
    group->has_later = false;
    group->marked_ms = clock_monotonic_ms();
}

static bool has_failed(struct nccl_group *group);

/* A part and its whole fail together. With the mutex held. */
static bool is_broken(struct nccl_group *group)
{
    return group->has_failed || peer_sums_has_failed(group->peer_sums) ||
           (group->whole != NULL && has_failed(group->whole));
}

static bool has_failed(struct nccl_group *group)
{
    bool result;

    pthread_mutex_lock(&group->mutex);
    result = is_broken(group);
    pthread_mutex_unlock(&group->mutex);
    return result;
}

/* What a rank could not enqueue, its peers would wait for. */
static enum tca_status check(struct nccl_group *group, cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return TCA_OK;
    pthread_mutex_lock(&group->mutex);
    (void)fail(group, what, cudaGetErrorString(code));
    pthread_mutex_unlock(&group->mutex);
    return TCA_ERR_COMM;
}

/* Watch what NCCL was given on the stream. The watcher leaves `latest` alone meanwhile. */
static void watch_behind(struct nccl_group *group, cudaStream_t stream)
{
    cudaError_t code;

    pthread_mutex_lock(&group->mutex);
    group->recorded_since_ms = clock_monotonic_ms();
    pthread_mutex_unlock(&group->mutex);
    code = cudaEventRecord(group->latest, stream);
    pthread_mutex_lock(&group->mutex);
    group->recorded_since_ms = 0;
    if (code == cudaSuccess) {
        group->has_later = true;
        if (!group->is_marked)
            mark(group);
    }
    pthread_mutex_unlock(&group->mutex);
}

/* Lock for a call of NCCL's, unless the group is broken. */
static enum tca_status open_call(struct nccl_group *group)
{
    pthread_mutex_lock(&group->mutex);
    if (!is_broken(group))
        return TCA_OK;
    pthread_mutex_unlock(&group->mutex);
    return TCA_ERR_COMM;
}

/* Unlock, and watch what was enqueued. */
static enum tca_status close_call(struct nccl_group *group, enum tca_status status,
                                  cudaStream_t stream)
{
    pthread_mutex_unlock(&group->mutex);
    if (status == TCA_OK)
        watch_behind(group, stream);
    return status;
}

static enum tca_status count_sent(struct nccl_group *group, enum tca_status status, uint64_t bytes)
{
    if (status == TCA_OK)
        group->base.sent_bytes += bytes;
    return status;
}

static enum tca_status sum_on(struct nccl_group *group, void *buf, size_t count,
                              enum kernel_dtype dtype, cudaStream_t stream)
{
    ncclDataType_t type = dtype == KERNEL_F32 ? ncclFloat32 : ncclBfloat16;

    TCA_TRY(open_call(group));
    return close_call(group,
                      finish(group,
                             ncclAllReduce(buf, buf, count, type, ncclSum, group->comm, stream),
                             "ncclAllReduce"),
                      stream);
}

/* A sum through a peer's memory watches itself: an event behind it would keep the next kernel from
 * beginning early. */
static enum tca_status all_reduce_sum(struct comm_group *base, void *buf, size_t count,
                                      enum kernel_dtype dtype, struct kernel_queue *queue)
{
    struct nccl_group *group = (struct nccl_group *)base;
    cudaStream_t stream = cuda_queue_from(queue)->stream;
    const size_t bytes = count * reduce_element_bytes(dtype);
    enum tca_status status;

    if (has_failed(group))
        return TCA_ERR_COMM;
    if (count == 0)
        return TCA_OK;
    if (peer_sums_takes(group->peer_sums, buf, bytes))
        status = check(group, peer_sums_sum(group->peer_sums, buf, count, dtype, stream),
                       "a sum through a peer's memory");
    else
        status = sum_on(group, buf, count, dtype, stream);
    return count_sent(group, status, reduce_sent_bytes(bytes, base->ranks));
}

/* NCCL's, beside what is on `stream` from now on. */
static enum tca_status begin_on_side(struct nccl_group *group, int slot, void *buf, size_t count,
                                     enum kernel_dtype dtype, cudaStream_t stream)
{
    TCA_TRY(check(group, cudaEventRecord(group->ready, stream), "cudaEventRecord"));
    TCA_TRY(check(group, cudaStreamWaitEvent(group->side, group->ready, 0), "cudaStreamWaitEvent"));
    TCA_TRY(sum_on(group, buf, count, dtype, group->side));
    return check(group, cudaEventRecord(group->summed[slot], group->side), "cudaEventRecord");
}

static enum tca_status all_reduce_begin(struct comm_group *base, int slot, void *buf, size_t count,
                                        enum kernel_dtype dtype, struct kernel_queue *queue)
{
    struct nccl_group *group = (struct nccl_group *)base;
    cudaStream_t stream = cuda_queue_from(queue)->stream;
    const size_t bytes = count * reduce_element_bytes(dtype);
    enum tca_status status;

    if (has_failed(group))
        return TCA_ERR_COMM;
    group->is_by_peer[slot] = count > 0 && peer_sums_takes_begun(group->peer_sums, buf, bytes);
    if (count == 0)
        return TCA_OK;
    if (group->is_by_peer[slot])
        status = check(group, peer_sums_begin(group->peer_sums, slot, buf, count, dtype, stream),
                       "a sum through a peer's memory");
    else
        status = begin_on_side(group, slot, buf, count, dtype, stream);
    return count_sent(group, status, reduce_sent_bytes(bytes, base->ranks));
}

/* The host waits for nothing: the queue's stream does. A failed sum lets it go on, with anything in
 * the buffer; the control messages then fail. */
static enum tca_status all_reduce_await(struct comm_group *base, int slot,
                                        struct kernel_queue *queue, const void **rest_out)
{
    struct nccl_group *group = (struct nccl_group *)base;
    cudaStream_t stream = cuda_queue_from(queue)->stream;

    if (rest_out != NULL)
        *rest_out = NULL;
    if (has_failed(group))
        return TCA_ERR_COMM;
    return check(group,
                 group->is_by_peer[slot] ? peer_sums_await(group->peer_sums, slot, stream, rest_out)
                                         : cudaStreamWaitEvent(stream, group->summed[slot], 0),
                 "the wait for a begun sum");
}

static enum tca_status all_gather(struct comm_group *base, void *recv, const void *send,
                                  size_t bytes, struct kernel_queue *queue)
{
    struct nccl_group *group = (struct nccl_group *)base;
    cudaStream_t stream = cuda_queue_from(queue)->stream;
    enum tca_status status;

    if (bytes == 0)
        return TCA_OK;
    TCA_TRY(open_call(group));
    status = finish(group, ncclAllGather(send, recv, bytes, ncclUint8, group->comm, stream),
                    "ncclAllGather");
    return count_sent(group, close_call(group, status, stream),
                      (uint64_t)bytes * (uint64_t)(base->ranks - 1));
}

/* Within a group of calls, "in progress" is no news: the last call tells. */
static ncclResult_t worse(ncclResult_t a, ncclResult_t b)
{
    return a != ncclSuccess && a != ncclInProgress ? a : b;
}

static ncclResult_t send_to_all(const struct nccl_group *group, char *recv, const char *send,
                                size_t bytes, cudaStream_t stream)
{
    ncclResult_t result = ncclGroupStart();

    if (result != ncclSuccess)
        return result;
    for (int peer = 0; peer < group->base.ranks; peer++) {
        size_t at = (size_t)peer * bytes;

        result = worse(result, ncclSend(send + at, bytes, ncclUint8, peer, group->comm, stream));
        result = worse(result, ncclRecv(recv + at, bytes, ncclUint8, peer, group->comm, stream));
    }
    return worse(result, ncclGroupEnd());
}

static enum tca_status all_to_all(struct comm_group *base, void *recv, const void *send,
                                  size_t bytes_per_rank, struct kernel_queue *queue)
{
    struct nccl_group *group = (struct nccl_group *)base;
    cudaStream_t stream = cuda_queue_from(queue)->stream;
    enum tca_status status;

    if (bytes_per_rank == 0)
        return TCA_OK;
    TCA_TRY(open_call(group));
    status = finish(group, send_to_all(group, recv, send, bytes_per_rank, stream), "ncclSend");
    return count_sent(group, close_call(group, status, stream),
                      (uint64_t)bytes_per_rank * (uint64_t)(base->ranks - 1));
}

/* An aborted sum leaves anything in its buffer: what was made of it must not be sent. */
static enum tca_status broadcast(struct comm_group *base, void *buf, size_t bytes, int root,
                                 int timeout_ms)
{
    struct nccl_group *group = (struct nccl_group *)base;

    if (has_failed(group))
        return TCA_ERR_COMM;
    return group->control->ops->broadcast(group->control, buf, bytes, root, timeout_ms);
}

static enum tca_status gather(struct comm_group *base, void *recv, const void *send, size_t bytes,
                              int root, int timeout_ms)
{
    struct nccl_group *group = (struct nccl_group *)base;

    if (has_failed(group))
        return TCA_ERR_COMM;
    return group->control->ops->gather(group->control, recv, send, bytes, root, timeout_ms);
}

static enum tca_status poll_error(struct comm_group *base)
{
    struct nccl_group *group = (struct nccl_group *)base;

    if (has_failed(group))
        return TCA_ERR_COMM;
    return group->control->ops->poll_error(group->control);
}

static void abort_group(struct comm_group *base)
{
    struct nccl_group *group = (struct nccl_group *)base;

    pthread_mutex_lock(&group->mutex);
    (void)fail(group, "NCCL", "this rank gives up");
    pthread_mutex_unlock(&group->mutex);
    group->control->ops->abort(group->control);
}

static bool is_late(const struct nccl_group *group, int64_t since_ms)
{
    return clock_monotonic_ms() - since_ms > group->timeout_ms;
}

/* With the mutex held. */
static void look_at_marker(struct nccl_group *group)
{
    const cudaError_t done = cudaEventQuery(group->marker);

    if (done == cudaSuccess && !group->has_later)
        group->is_marked = false;
    else if (done == cudaSuccess && group->recorded_since_ms == 0)
        mark(group);
    else if (done != cudaSuccess && done != cudaErrorNotReady)
        (void)fail(group, "a sum", cudaGetErrorString(done));
    else if (done == cudaErrorNotReady && is_late(group, group->marked_ms))
        (void)fail(group, "a sum", "it did not end in time");
}

/* With the mutex held. */
static void look(struct nccl_group *group)
{
    ncclResult_t state = ncclSuccess;

    if (group->has_failed)
        return;
    if (peer_sums_has_failed(group->peer_sums)) {
        (void)fail(group, "a sum through a peer's memory", "it did not end in time");
        return;
    }
    if (is_broken(group)) {
        (void)fail(group, "NCCL", "the group it is a part of has failed");
        return;
    }
    if (ncclCommGetAsyncError(group->comm, &state) != ncclSuccess ||
        (state != ncclSuccess && state != ncclInProgress)) {
        (void)fail(group, "NCCL", ncclGetLastError(group->comm));
        return;
    }
    if (group->recorded_since_ms != 0 && is_late(group, group->recorded_since_ms)) {
        (void)fail(group, "a sum", "it did not begin in time");
        return;
    }
    if (group->is_marked)
        look_at_marker(group);
}

static void *watch(void *context)
{
    struct nccl_group *group = context;

    (void)cudaSetDevice(group->device);
    pthread_mutex_lock(&group->mutex);
    while (!group->is_stopping) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)WATCH_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&group->changed, &group->mutex, &until) == ETIMEDOUT)
            look(group);
    }
    pthread_mutex_unlock(&group->mutex);
    return NULL;
}

/* The one list of the group's events. */
static cudaEvent_t *event_of(struct nccl_group *group, int index)
{
    cudaEvent_t *const others[] = {&group->ready, &group->marker, &group->latest};

    return index < COMM_SLOTS ? &group->summed[index] : others[index - COMM_SLOTS];
}

static void destroy(struct comm_group *base)
{
    struct nccl_group *group = (struct nccl_group *)base;

    if (group == NULL)
        return;
    if (group->has_watcher) {
        pthread_mutex_lock(&group->mutex);
        group->is_stopping = true;
        pthread_cond_signal(&group->changed);
        pthread_mutex_unlock(&group->mutex);
        pthread_join(group->watcher, NULL);
    }
    /* Waits for no peer. Every step ends with an exchange of control messages after the queue is
     * empty, so that no peer still reads from this rank, or writes to it. */
    peer_sums_abort(group->peer_sums);
    if (group->comm != NULL)
        (void)ncclCommAbort(group->comm);
    peer_sums_destroy(group->peer_sums);
    for (int i = 0; i < EVENTS; i++)
        if (*event_of(group, i) != NULL)
            cudaEventDestroy(*event_of(group, i));
    if (group->side != NULL)
        cudaStreamDestroy(group->side);
    if (group->whole != NULL)
        group->control->ops->destroy(group->control);
    pthread_mutex_destroy(&group->mutex);
    pthread_cond_destroy(&group->changed);
    free(group);
}

/* From now on the part fails the whole, and owns its control messages. */
static void adopt(struct nccl_group *whole, struct nccl_group *part)
{
    pthread_mutex_lock(&part->mutex); /* its watcher runs */
    part->whole = whole;
    pthread_mutex_unlock(&part->mutex);
}

/* A group over the part's control messages, as the whole was made over its own. */
static enum tca_status split(struct comm_group *base, int first, int ranks,
                             struct comm_group **part_out)
{
    struct nccl_group *group = (struct nccl_group *)base;
    struct comm_group *control, *part;
    struct tca_error error = {.text = ""};
    enum tca_status status;

    if (has_failed(group))
        return TCA_ERR_COMM;
    TCA_TRY(group->control->ops->split(group->control, first, ranks, &control));
    status = comm_nccl_create(control, group->device, group->timeout_ms, COMM_NCCL_SUMS_ALL, &part,
                              &error);
    if (status != TCA_OK) {
        log_error("rank %d: a part of %d ranks from %d: %s", base->rank, ranks, first, error.text);
        control->ops->destroy(control);
        return status;
    }
    adopt(group, (struct nccl_group *)part);
    *part_out = part;
    return TCA_OK;
}

static const struct comm_ops nccl_ops = {
    .name = "nccl",
    .all_reduce_sum = all_reduce_sum,
    .all_reduce_begin = all_reduce_begin,
    .all_reduce_await = all_reduce_await,
    .all_gather = all_gather,
    .all_to_all = all_to_all,
    .split = split,
    .broadcast = broadcast,
    .gather = gather,
    .poll_error = poll_error,
    .abort = abort_group,
    .destroy = destroy,
};

/* What rank 0 tells the others before anyone waits in NCCL. */
struct invitation {
    ncclUniqueId id;
    int32_t refused_by; /* the first rank that cannot take part, or -1 */
};

static enum tca_status invite(struct nccl_group *group, enum tca_status own,
                              struct invitation *invitation_out, struct tca_error *error)
{
    struct comm_group *control = group->control;
    int32_t statuses[COMM_RANKS_MAX];
    int32_t status = own;

    TCA_TRY(control->ops->gather(control, control->rank == 0 ? statuses : NULL, &status,
                                 sizeof(status), 0, group->timeout_ms));
    if (control->rank == 0) {
        if (own == TCA_OK && ncclGetUniqueId(&invitation_out->id) != ncclSuccess)
            statuses[0] = TCA_ERR_COMM;
        invitation_out->refused_by = -1;
        for (int rank = control->ranks - 1; rank >= 0; rank--)
            if (statuses[rank] != TCA_OK)
                invitation_out->refused_by = rank;
    }
    TCA_TRY(control->ops->broadcast(control, invitation_out, sizeof(*invitation_out), 0,
                                    group->timeout_ms));
    if (own != TCA_OK)
        return own; /* told already */
    if (invitation_out->refused_by >= 0)
        return tca_fail(error, TCA_ERR_ABORTED, "rank %d cannot join NCCL's group",
                        invitation_out->refused_by);
    return TCA_OK;
}

static enum tca_status prepare(struct nccl_group *group, struct tca_error *error)
{
    cudaError_t code = cudaSetDevice(group->device);
    int least, greatest;

    for (int i = 0; i < EVENTS && code == cudaSuccess; i++)
        code = cudaEventCreateWithFlags(event_of(group, i), cudaEventDisableTiming);
    if (code == cudaSuccess)
        code = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    /* A sum is not to wait for a product's last block, or it would end after the next product. */
    if (code == cudaSuccess)
        code = cudaStreamCreateWithPriority(&group->side, cudaStreamNonBlocking, greatest);
    if (code == cudaSuccess)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_DEVICE, "CUDA device %d: %s", group->device,
                    cudaGetErrorString(code));
}

static enum tca_status join(struct nccl_group *group, const struct invitation *invitation,
                            struct tca_error *error)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    enum tca_status status;

    config.blocking = 0;
    pthread_mutex_lock(&group->mutex);
    status = finish(group,
                    ncclCommInitRankConfig(&group->comm, group->base.ranks, invitation->id,
                                           group->base.rank, &config),
                    "ncclCommInitRank");
    pthread_mutex_unlock(&group->mutex);
    if (status != TCA_OK)
        return tca_fail(error, TCA_ERR_COMM, "NCCL's group could not be made");
    return TCA_OK;
}

static enum tca_status prepare_peers(struct nccl_group *group, struct tca_error *error)
{
    enum tca_status status = peer_sums_create(group->control, group->timeout_ms, &group->peer_sums);

    if (status != TCA_OK)
        return tca_fail(error, status, "agreeing on how sums go: %s", tca_status_text(status));
    return TCA_OK;
}

static enum tca_status start(struct nccl_group *group, struct tca_error *error)
{
    int version = 0;

    if (pthread_create(&group->watcher, NULL, watch, group) != 0)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no thread to watch NCCL");
    group->has_watcher = true;
    if (ncclGetVersion(&version) == ncclSuccess && group->base.rank == 0)
        log_info("NCCL %d, %d ranks, %s", version, group->base.ranks,
                 peer_sums_text(group->peer_sums));
    return TCA_OK;
}

enum tca_status comm_nccl_create(struct comm_group *control, int device, int timeout_ms,
                                 enum comm_nccl_sums sums, struct comm_group **group_out,
                                 struct tca_error *error)
{
    struct nccl_group *group = calloc(1, sizeof(*group));
    struct invitation invitation = {.refused_by = 0};
    pthread_condattr_t monotonic;
    enum tca_status status;

    if (group == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for NCCL's group");
    group->base =
        (struct comm_group){.ops = &nccl_ops, .rank = control->rank, .ranks = control->ranks};
    group->control = control;
    group->device = device;
    group->timeout_ms = timeout_ms;
    pthread_mutex_init(&group->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&group->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    status = invite(group, prepare(group, error), &invitation, error);
    if (status == TCA_OK)
        status = join(group, &invitation, error);
    if (status == TCA_OK && sums == COMM_NCCL_SUMS_OTHER)
        status = prepare_peers(group, error);
    if (status == TCA_OK)
        status = start(group, error);
    if (status != TCA_OK) {
        destroy(&group->base);
        return status;
    }
    *group_out = &group->base;
    return TCA_OK;
}
