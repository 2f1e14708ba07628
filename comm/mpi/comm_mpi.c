/* Everything is sent point to point, so that every wait can be polled against a deadline and sums
 * are added in one order (comm/reduce.h). All-reduce: a short message goes to every peer whole, one
 * latency in all; a long one is cut into a slice a rank (reduce-scatter, then all-gather), which
 * moves the fewest bytes.
 *
 * MPI moves data only inside its calls, a little in each. So a rank that sleeps between polls would
 * slow down a transfer that has begun: ranks meet first (asleep, if it takes long) and then move
 * the data without sleeping. */
#include "comm/mpi/comm_mpi.h"

#include "base/clock.h"
#include "base/log.h"
#include "comm/reduce.h"

#include <mpi.h>

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SHORT_MESSAGE_BYTES = 32 * 1024, ABORT_STATUS = 70 };
enum { EAGER_BYTES = 4000 }; /* MPI sends at most these without asking the receiver first */
/* A wait spins at first, longer for data under way (as if at 125 MB/s); then its sleeps grow with
 * it, so that it ends at most 1/16 late. */
enum { SPIN_NS = 200 * 1000, SPIN_NS_PER_BYTE = 8 };
enum { SLEEP_MIN_NS = 20 * 1000, SLEEP_MAX_NS = 1000 * 1000, SLEEP_SHARE = 16 };
enum message_tag { TAG_MEET = 1, TAG_REDUCE, TAG_SPREAD, TAG_EXCHANGE, TAG_BROADCAST, TAG_GATHER };

/* A part made by split() sends between the same processes, in the same order as the whole group's
 * other calls, so that it needs no communicator of its own. */
struct mpi_group {
    struct comm_group base;
    const struct kernel_backend *backend;
    int timeout_ms;
    struct mpi_group *whole; /* itself, unless it is a part: then borrowed */
    int first;               /* rank 0's process */
    bool has_failed;         /* of the whole */
    int posted;              /* messages under way */
    MPI_Request *requests;   /* [2 * ranks], owned */
    MPI_Status *statuses;    /* [2 * ranks], owned */
    int *receive_bytes;      /* [2 * ranks], owned; -1: a send */
    uint8_t *scratch;        /* [ranks - 1, bytes of a peer's message], owned, grown on demand */
    size_t scratch_bytes;
};

static enum tca_status mpi_status(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int bytes = 0;

    if (code == MPI_SUCCESS)
        return TCA_OK;
    MPI_Error_string(code, text, &bytes);
    log_error("%s: %s", what, text);
    return TCA_ERR_COMM;
}

static enum tca_status fail(struct mpi_group *group, enum tca_status status)
{
    group->whole->has_failed = true;
    return status;
}

static enum tca_status post_send(struct mpi_group *group, int peer, const void *data, size_t bytes,
                                 enum message_tag tag)
{
    group->receive_bytes[group->posted] = -1;
    return mpi_status(MPI_Isend(data, (int)bytes, MPI_BYTE, group->first + peer, (int)tag,
                                MPI_COMM_WORLD, &group->requests[group->posted++]),
                      "MPI_Isend");
}

static enum tca_status post_receive(struct mpi_group *group, int peer, void *data, size_t bytes,
                                    enum message_tag tag)
{
    group->receive_bytes[group->posted] = (int)bytes;
    return mpi_status(MPI_Irecv(data, (int)bytes, MPI_BYTE, group->first + peer, (int)tag,
                                MPI_COMM_WORLD, &group->requests[group->posted++]),
                      "MPI_Irecv");
}

/* A shorter message than expected is no error to MPI. */
static enum tca_status check_sizes(const struct mpi_group *group)
{
    for (int i = 0; i < group->posted; i++) {
        int bytes = 0;

        if (group->receive_bytes[i] < 0)
            continue;
        MPI_Get_count(&group->statuses[i], MPI_BYTE, &bytes);
        if (bytes != group->receive_bytes[i]) {
            log_error("rank %d: rank %d sent %d bytes, expected %d", group->base.rank,
                      group->statuses[i].MPI_SOURCE, bytes, group->receive_bytes[i]);
            return TCA_ERR_COMM;
        }
    }
    return TCA_OK;
}

static void sleep_between_polls(int64_t waited_ns)
{
    int64_t sleep_ns = waited_ns / SLEEP_SHARE;
    struct timespec sleep = {.tv_nsec = SLEEP_MAX_NS};

    if (sleep_ns < SLEEP_MAX_NS)
        sleep.tv_nsec = sleep_ns > SLEEP_MIN_NS ? (long)sleep_ns : SLEEP_MIN_NS;
    nanosleep(&sleep, NULL);
}

/* Waits for all posted messages. After a failure MPI still knows the buffers of those under way,
 * but touches them only inside its calls, of which there are no more. */
static enum tca_status wait_all(struct mpi_group *group, int timeout_ms, int64_t spin_ns)
{
    const int64_t start_ns = clock_monotonic_ns();
    int is_done = 0;

    for (;;) {
        int64_t waited_ns;

        TCA_TRY(mpi_status(MPI_Testall(group->posted, group->requests, &is_done, group->statuses),
                           "MPI_Testall"));
        if (is_done)
            break;
        waited_ns = clock_monotonic_ns() - start_ns;
        if (waited_ns > (int64_t)timeout_ms * 1000000) {
            log_error("rank %d: no answer from a peer in %d ms", group->base.rank, timeout_ms);
            return TCA_ERR_COMM;
        }
        if (waited_ns < spin_ns)
            sched_yield();
        else
            sleep_between_polls(waited_ns);
    }
    TCA_TRY(check_sizes(group));
    group->posted = 0;
    return TCA_OK;
}

/* Room for one message of `bytes` from every peer. */
static enum tca_status reserve_scratch(struct mpi_group *group, size_t bytes)
{
    size_t wanted = bytes * (size_t)(group->base.ranks - 1);
    uint8_t *scratch;

    if (wanted <= group->scratch_bytes)
        return TCA_OK;
    scratch = realloc(group->scratch, wanted);
    if (scratch == NULL) {
        log_error("rank %d: no memory for %zu bytes of messages", group->base.rank, wanted);
        return TCA_ERR_NO_MEMORY;
    }
    group->scratch = scratch;
    group->scratch_bytes = wanted;
    return TCA_OK;
}

/* Returns once every rank is here. */
static enum tca_status meet(struct mpi_group *group)
{
    for (int peer = 0; peer < group->base.ranks; peer++)
        if (peer != group->base.rank) {
            TCA_TRY(post_receive(group, peer, NULL, 0, TAG_MEET));
            TCA_TRY(post_send(group, peer, NULL, 0, TAG_MEET));
        }
    return wait_all(group, group->timeout_ms, SPIN_NS);
}

static enum tca_status wait_for_data(struct mpi_group *group, size_t bytes)
{
    return wait_all(group, group->timeout_ms, SPIN_NS + (int64_t)bytes * SPIN_NS_PER_BYTE);
}

/* A run of elements of the buffer that is reduced. */
struct slice {
    uint8_t *data;
    size_t bytes;
};

/* Sum the ranks' versions of `own` into it. Peer p needs sends[p] of this rank and sends as much as
 * `own`. */
static enum tca_status exchange_and_sum(struct mpi_group *group, struct slice own,
                                        const struct slice *sends, enum kernel_dtype dtype)
{
    const void *sources[COMM_RANKS_MAX];
    uint8_t *place;

    TCA_TRY(reserve_scratch(group, own.bytes));
    place = group->scratch;
    for (int peer = 0; peer < group->base.ranks; peer++) {
        sources[peer] = own.data;
        if (peer == group->base.rank)
            continue;
        sources[peer] = place;
        TCA_TRY(post_receive(group, peer, place, own.bytes, TAG_REDUCE));
        place += own.bytes;
    }
    for (int peer = 0; peer < group->base.ranks; peer++)
        if (peer != group->base.rank)
            TCA_TRY(post_send(group, peer, sends[peer].data, sends[peer].bytes, TAG_REDUCE));
    TCA_TRY(wait_for_data(group, own.bytes * (size_t)group->base.ranks));
    reduce_sum(own.data, sources, &group->base, own.bytes / reduce_element_bytes(dtype), dtype);
    return TCA_OK;
}

static enum tca_status reduce_short(struct mpi_group *group, struct slice whole,
                                    enum kernel_dtype dtype)
{
    struct slice sends[COMM_RANKS_MAX];

    for (int peer = 0; peer < group->base.ranks; peer++)
        sends[peer] = whole;
    return exchange_and_sum(group, whole, sends, dtype);
}

static enum tca_status reduce_long(struct mpi_group *group, uint8_t *buf, size_t count,
                                   enum kernel_dtype dtype)
{
    size_t element = reduce_element_bytes(dtype);
    int rank = group->base.rank, ranks = group->base.ranks;
    struct slice slices[COMM_RANKS_MAX] = {{0}};

    for (int i = 0; i < ranks; i++) {
        size_t first = reduce_slice_first(count, i, ranks);

        slices[i].data = buf + first * element;
        slices[i].bytes = (reduce_slice_first(count, i + 1, ranks) - first) * element;
    }
    TCA_TRY(exchange_and_sum(group, slices[rank], slices, dtype));
    for (int i = 0; i < ranks; i++)
        if (i != rank)
            TCA_TRY(post_receive(group, i, slices[i].data, slices[i].bytes, TAG_SPREAD));
    for (int i = 0; i < ranks; i++)
        if (i != rank)
            TCA_TRY(post_send(group, i, slices[rank].data, slices[rank].bytes, TAG_SPREAD));
    return wait_for_data(group, count * element);
}

static enum tca_status all_reduce_sum(struct comm_group *base, void *buf, size_t count,
                                      enum kernel_dtype dtype, struct kernel_queue *queue)
{
    struct mpi_group *group = (struct mpi_group *)base;
    size_t bytes = count * reduce_element_bytes(dtype);
    enum tca_status status;

    if (group->whole->has_failed)
        return TCA_ERR_COMM;
    if (count > INT_MAX / reduce_element_bytes(dtype))
        return TCA_ERR_INVALID;
    if (group->backend != NULL && queue != NULL)
        TCA_TRY(group->backend->queue_wait(queue));
    if (base->ranks == 1 || count == 0)
        return TCA_OK;
    status = bytes > EAGER_BYTES ? meet(group) : TCA_OK;
    if (status != TCA_OK)
        return fail(group, status);
    if (bytes <= SHORT_MESSAGE_BYTES)
        status = reduce_short(group, (struct slice){buf, bytes}, dtype);
    else
        status = reduce_long(group, buf, count, dtype);
    if (status != TCA_OK)
        return fail(group, status);
    base->sent_bytes += reduce_sent_bytes(bytes, base->ranks);
    return TCA_OK;
}

/* Messages move by the thread that would compute meanwhile: the sum is made at once. */
static enum tca_status all_reduce_begin(struct comm_group *base, int slot, void *buf, size_t count,
                                        enum kernel_dtype dtype, struct kernel_queue *queue)
{
    (void)slot;
    return all_reduce_sum(base, buf, count, dtype, queue);
}

static enum tca_status all_reduce_await(struct comm_group *base, int slot,
                                        struct kernel_queue *queue, const void **rest_out)
{
    (void)slot;
    (void)queue;
    if (rest_out != NULL)
        *rest_out = NULL;
    return ((struct mpi_group *)base)->whole->has_failed ? TCA_ERR_COMM : TCA_OK;
}

static enum tca_status post_exchange(struct mpi_group *group, uint8_t *recv, const uint8_t *send,
                                     size_t bytes, size_t send_stride)
{
    int rank = group->base.rank;

    if (bytes > EAGER_BYTES)
        TCA_TRY(meet(group));
    for (int peer = 0; peer < group->base.ranks; peer++)
        if (peer != rank)
            TCA_TRY(post_receive(group, peer, recv + (size_t)peer * bytes, bytes, TAG_EXCHANGE));
    for (int peer = 0; peer < group->base.ranks; peer++)
        if (peer != rank)
            TCA_TRY(post_send(group, peer, send + (size_t)peer * send_stride, bytes, TAG_EXCHANGE));
    return TCA_OK;
}

/* Peer p gets the `bytes` at send + p * send_stride. */
static enum tca_status exchange(struct mpi_group *group, uint8_t *recv, const uint8_t *send,
                                size_t bytes, size_t send_stride, struct kernel_queue *queue)
{
    size_t rank = (size_t)group->base.rank;
    size_t peers = (size_t)group->base.ranks - 1;
    enum tca_status status;

    if (group->whole->has_failed)
        return TCA_ERR_COMM;
    if (bytes > INT_MAX)
        return TCA_ERR_INVALID;
    if (group->backend != NULL && queue != NULL)
        TCA_TRY(group->backend->queue_wait(queue));
    if (bytes == 0)
        return TCA_OK;
    status = post_exchange(group, recv, send, bytes, send_stride);
    if (recv + rank * bytes != send + rank * send_stride)
        memcpy(recv + rank * bytes, send + rank * send_stride, bytes);
    if (status == TCA_OK)
        status = wait_for_data(group, peers * bytes);
    if (status != TCA_OK)
        return fail(group, status);
    group->base.sent_bytes += peers * bytes;
    return TCA_OK;
}

static enum tca_status all_gather(struct comm_group *base, void *recv, const void *send,
                                  size_t bytes, struct kernel_queue *queue)
{
    return exchange((struct mpi_group *)base, recv, send, bytes, 0, queue);
}

static enum tca_status all_to_all(struct comm_group *base, void *recv, const void *send,
                                  size_t bytes_per_rank, struct kernel_queue *queue)
{
    return exchange((struct mpi_group *)base, recv, send, bytes_per_rank, bytes_per_rank, queue);
}

static enum tca_status broadcast(struct comm_group *base, void *buf, size_t bytes, int root,
                                 int timeout_ms)
{
    struct mpi_group *group = (struct mpi_group *)base;
    enum tca_status status = TCA_OK;

    if (group->whole->has_failed)
        return TCA_ERR_COMM;
    if (bytes > INT_MAX)
        return TCA_ERR_INVALID;
    if (base->rank != root)
        status = post_receive(group, root, buf, bytes, TAG_BROADCAST);
    for (int peer = 0; base->rank == root && peer < base->ranks && status == TCA_OK; peer++)
        if (peer != root)
            status = post_send(group, peer, buf, bytes, TAG_BROADCAST);
    if (status == TCA_OK)
        status = wait_all(group, timeout_ms, SPIN_NS);
    return status == TCA_OK ? TCA_OK : fail(group, status);
}

static enum tca_status gather(struct comm_group *base, void *recv, const void *send, size_t bytes,
                              int root, int timeout_ms)
{
    struct mpi_group *group = (struct mpi_group *)base;
    enum tca_status status = TCA_OK;
    uint8_t *place = recv;

    if (group->whole->has_failed)
        return TCA_ERR_COMM;
    if (bytes > INT_MAX)
        return TCA_ERR_INVALID;
    if (base->rank != root)
        status = post_send(group, root, send, bytes, TAG_GATHER);
    for (int peer = 0; base->rank == root && peer < base->ranks && status == TCA_OK; peer++) {
        if (peer != root)
            status = post_receive(group, peer, place, bytes, TAG_GATHER);
        else if (bytes > 0)
            memcpy(place, send, bytes);
        place += bytes;
    }
    if (status == TCA_OK)
        status = wait_all(group, timeout_ms, SPIN_NS);
    return status == TCA_OK ? TCA_OK : fail(group, status);
}

static enum tca_status poll_error(struct comm_group *base)
{
    return ((struct mpi_group *)base)->whole->has_failed ? TCA_ERR_COMM : TCA_OK;
}

static void abort_group(struct comm_group *base)
{
    log_error("rank %d: ends the group", base->rank);
    MPI_Abort(MPI_COMM_WORLD, ABORT_STATUS);
}

static void group_free(struct mpi_group *group)
{
    if (group == NULL)
        return;
    free(group->requests);
    free(group->statuses);
    free(group->receive_bytes);
    free(group->scratch);
    free(group);
}

/* MPI_Finalize waits for all ranks without a deadline, so it is entered only when they are all
 * here. A group that failed never enters it: mpirun sees the exit and ends the others. */
static void destroy(struct comm_group *base)
{
    struct mpi_group *group = (struct mpi_group *)base;

    if (group == NULL)
        return;
    if (group->whole == group && !group->has_failed &&
        mpi_status(MPI_Ibarrier(MPI_COMM_WORLD, &group->requests[0]), "MPI_Ibarrier") == TCA_OK) {
        group->posted = 1;
        group->receive_bytes[0] = -1;
        if (wait_all(group, group->timeout_ms, SPIN_NS) == TCA_OK)
            MPI_Finalize();
    }
    group_free(group);
}

/* NULL: no memory. */
static struct mpi_group *group_create(int rank, int ranks)
{
    struct mpi_group *group = calloc(1, sizeof(*group));
    size_t messages = 2 * (size_t)ranks;

    if (group == NULL)
        return NULL;
    group->base = (struct comm_group){.rank = rank, .ranks = ranks};
    group->whole = group;
    group->requests = calloc(messages, sizeof(*group->requests));
    group->statuses = calloc(messages, sizeof(*group->statuses));
    group->receive_bytes = calloc(messages, sizeof(*group->receive_bytes));
    if (group->requests == NULL || group->statuses == NULL || group->receive_bytes == NULL) {
        group_free(group);
        return NULL;
    }
    return group;
}

static enum tca_status split(struct comm_group *base, int first, int ranks,
                             struct comm_group **part_out)
{
    struct mpi_group *group = (struct mpi_group *)base;
    struct mpi_group *part;

    if (group->whole->has_failed)
        return TCA_ERR_COMM;
    if (first < 0 || base->rank < first || base->rank - first >= ranks ||
        ranks > base->ranks - first)
        return TCA_ERR_INVALID;
    part = group_create(base->rank - first, ranks);
    if (part == NULL)
        return TCA_ERR_NO_MEMORY;
    part->base.ops = base->ops;
    part->backend = group->backend;
    part->timeout_ms = group->timeout_ms;
    part->whole = group->whole;
    part->first = group->first + first;
    *part_out = &part->base;
    return TCA_OK;
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
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

static enum tca_status start_mpi(int *rank_out, int *ranks_out)
{
    int is_started = 0, threads = 0;

    TCA_TRY(mpi_status(MPI_Initialized(&is_started), "MPI_Initialized"));
    if (is_started) {
        log_error("MPI was started before");
        return TCA_ERR_PRECONDITION;
    }
    TCA_TRY(mpi_status(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &threads),
                       "MPI_Init_thread"));
    if (threads < MPI_THREAD_SERIALIZED) {
        log_error("this MPI cannot be used by a thread other than the first");
        return TCA_ERR_UNSUPPORTED;
    }
    TCA_TRY(mpi_status(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                       "MPI_Comm_set_errhandler"));
    TCA_TRY(mpi_status(MPI_Comm_rank(MPI_COMM_WORLD, rank_out), "MPI_Comm_rank"));
    TCA_TRY(mpi_status(MPI_Comm_size(MPI_COMM_WORLD, ranks_out), "MPI_Comm_size"));
    if (*ranks_out > COMM_RANKS_MAX) {
        log_error("%d ranks, at most %d are allowed", *ranks_out, COMM_RANKS_MAX);
        return TCA_ERR_UNSUPPORTED;
    }
    return TCA_OK;
}

enum tca_status comm_mpi_create(const struct kernel_backend *backend, int timeout_ms,
                                struct comm_group **group_out)
{
    struct mpi_group *group;
    int rank = 0, ranks = 0;

    TCA_TRY(start_mpi(&rank, &ranks));
    group = group_create(rank, ranks);
    if (group == NULL)
        return TCA_ERR_NO_MEMORY;
    group->base.ops = &mpi_ops;
    group->backend = backend;
    group->timeout_ms = timeout_ms;
    *group_out = &group->base;
    return TCA_OK;
}
