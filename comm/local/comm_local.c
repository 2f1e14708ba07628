/* Every collective has the same three steps: all ranks arrive and show their buffers, each does
 * its part of the work on the others' memory, all leave. Only arriving can wait for a stuck peer,
 * so only that has a deadline: between the two a rank does bounded work on memory, and no buffer
 * may be given back before everyone has left. */
#include "comm/local/comm_local.h"

#include "base/log.h"
#include "comm/reduce.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum call_kind {
    CALL_ALL_REDUCE,
    CALL_ALL_GATHER,
    CALL_ALL_TO_ALL,
    CALL_BROADCAST,
    CALL_GATHER,
    CALL_SPLIT
};

/* What a rank shows on arrival; apart from the buffers it must be equal on all ranks. */
struct call {
    enum call_kind kind;
    enum kernel_dtype dtype;
    int root;
    size_t size; /* elements of an all-reduce, else bytes */
    void *buf;
    const void *send;
    int part_first, part_ranks; /* of a split: may differ between ranks */
    struct world *part;         /* the first rank of a part makes it; NULL: no memory */
};

/* What the groups of some ranks share. Those made by split() use the mutex, the condition and the
 * failure of the group that they are part of, `whole`, which outlives them. */
struct world {
    struct world *whole; /* itself, unless it is a part */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool has_failed;
    int ranks;
    int users;   /* groups not yet destroyed */
    int arrived; /* ranks inside the current call */
    int leaving; /* of them, those that have done their part */
    uint64_t calls_open, calls_done;
    struct call call[COMM_RANKS_MAX];
};

/* What a slot's sum is of. */
struct begun_sum {
    bool is_begun;
    void *buf;
    size_t count;
    enum kernel_dtype dtype;
};

struct local_group {
    struct comm_group base;
    struct begun_sum begun[COMM_SLOTS];
    struct world *world; /* shared, freed by its last user */
    const struct kernel_backend *backend;
    int timeout_ms;
};

static struct timespec deadline_after(int timeout_ms)
{
    struct timespec deadline;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    return deadline;
}

/* Every rank is in the part that the first rank of its part has shown. */
static bool parts_agree(const struct world *world)
{
    int first = 0;

    for (int rank = 0; rank < world->ranks; rank++) {
        const struct call *call = &world->call[rank];

        if (rank == first + world->call[first].part_ranks)
            first = rank;
        if (call->part_first != first || call->part_ranks != world->call[first].part_ranks)
            return false;
    }
    return first + world->call[first].part_ranks == world->ranks;
}

static bool calls_agree(const struct world *world)
{
    const struct call *first = &world->call[0];

    for (int rank = 1; rank < world->ranks; rank++) {
        const struct call *call = &world->call[rank];

        if (call->kind != first->kind || call->dtype != first->dtype || call->root != first->root ||
            call->size != first->size)
            return false;
    }
    return first->kind != CALL_SPLIT || parts_agree(world);
}

static void lock(struct world *world)
{
    pthread_mutex_lock(&world->whole->mutex);
}

static void unlock(struct world *world)
{
    pthread_mutex_unlock(&world->whole->mutex);
}

static void tell(struct world *world)
{
    pthread_cond_broadcast(&world->whole->changed);
}

static void fail(struct world *world)
{
    world->whole->has_failed = true;
    tell(world);
}

/* Returns once all ranks have shown their call. */
static enum tca_status arrive(struct local_group *group, const struct call *call, int timeout_ms)
{
    struct world *world = group->world, *whole = world->whole;
    struct timespec deadline = deadline_after(timeout_ms);
    enum tca_status status = TCA_ERR_COMM;
    uint64_t number;

    lock(world);
    number = world->calls_done;
    world->call[group->base.rank] = *call;
    if (++world->arrived == world->ranks && !whole->has_failed) {
        if (calls_agree(world)) {
            world->calls_open = number + 1;
            tell(world);
        } else {
            log_error("rank %d: ranks make different collective calls", group->base.rank);
            fail(world);
        }
    }
    while (world->calls_open == number && !whole->has_failed)
        if (pthread_cond_timedwait(&whole->changed, &whole->mutex, &deadline) == ETIMEDOUT &&
            world->calls_open == number && !whole->has_failed) {
            log_error("rank %d: no answer from a peer in %d ms", group->base.rank, timeout_ms);
            fail(world);
        }
    if (world->calls_open > number)
        status = TCA_OK;
    unlock(world);
    return status;
}

static void leave(struct local_group *group)
{
    struct world *world = group->world;
    uint64_t number;

    lock(world);
    number = world->calls_open;
    if (++world->leaving == world->ranks) {
        world->arrived = 0;
        world->leaving = 0;
        world->calls_done = number;
        tell(world);
    }
    while (world->calls_done < number)
        pthread_cond_wait(&world->whole->changed, &world->whole->mutex);
    unlock(world);
}

/* Each rank sums one slice and writes it to all: nobody else touches that slice. */
static void reduce_own_slice(const struct local_group *group, size_t count, enum kernel_dtype dtype)
{
    const struct world *world = group->world;
    size_t first = reduce_slice_first(count, group->base.rank, world->ranks);
    size_t end = reduce_slice_first(count, group->base.rank + 1, world->ranks);
    size_t bytes = reduce_element_bytes(dtype);
    const void *sources[COMM_RANKS_MAX];
    char *sum = (char *)world->call[0].buf + first * bytes;

    for (int rank = 0; rank < world->ranks; rank++)
        sources[rank] = (const char *)world->call[rank].buf + first * bytes;
    reduce_sum(sum, sources, &group->base, end - first, dtype);
    for (int rank = 1; rank < world->ranks; rank++)
        memcpy((char *)world->call[rank].buf + first * bytes, sum, (end - first) * bytes);
}

static enum tca_status all_reduce_sum(struct comm_group *base, void *buf, size_t count,
                                      enum kernel_dtype dtype, struct kernel_queue *queue)
{
    struct local_group *group = (struct local_group *)base;
    struct call call = {.kind = CALL_ALL_REDUCE, .dtype = dtype, .size = count, .buf = buf};

    if (group->backend != NULL && queue != NULL)
        TCA_TRY(group->backend->queue_wait(queue));
    TCA_TRY(arrive(group, &call, group->timeout_ms));
    reduce_own_slice(group, count, dtype);
    leave(group);
    base->sent_bytes += reduce_sent_bytes(count * reduce_element_bytes(dtype), base->ranks);
    return TCA_OK;
}

/* The sum is made when it is awaited, as late as it may be: who reads or writes the buffer before,
 * which only shows by chance where sums run beside the queue, gets wrong values every time. */
static enum tca_status all_reduce_begin(struct comm_group *base, int slot, void *buf, size_t count,
                                        enum kernel_dtype dtype, struct kernel_queue *queue)
{
    struct begun_sum *begun = &((struct local_group *)base)->begun[slot];

    (void)queue;
    if (begun->is_begun)
        return TCA_ERR_INVALID;
    *begun = (struct begun_sum){.is_begun = true, .buf = buf, .count = count, .dtype = dtype};
    return TCA_OK;
}

static enum tca_status all_reduce_await(struct comm_group *base, int slot,
                                        struct kernel_queue *queue, const void **rest_out)
{
    struct begun_sum *begun = &((struct local_group *)base)->begun[slot];

    if (!begun->is_begun)
        return TCA_ERR_INVALID;
    if (rest_out != NULL)
        *rest_out = NULL;
    begun->is_begun = false;
    return all_reduce_sum(base, begun->buf, begun->count, begun->dtype, queue);
}

/* Take `bytes` from every rank's send buffer, at `offset` into it. */
static enum tca_status exchange(struct local_group *group, const struct call *call, void *recv,
                                size_t offset, struct kernel_queue *queue)
{
    const struct world *world = group->world;

    if (group->backend != NULL && queue != NULL)
        TCA_TRY(group->backend->queue_wait(queue));
    TCA_TRY(arrive(group, call, group->timeout_ms));
    for (int rank = 0; rank < world->ranks && call->size > 0; rank++) {
        const char *from = (const char *)world->call[rank].send + offset;
        char *to = (char *)recv + (size_t)rank * call->size;

        if (from != to)
            memcpy(to, from, call->size);
    }
    leave(group);
    group->base.sent_bytes += (uint64_t)call->size * (uint64_t)(world->ranks - 1);
    return TCA_OK;
}

static enum tca_status all_gather(struct comm_group *base, void *recv, const void *send,
                                  size_t bytes, struct kernel_queue *queue)
{
    struct call call = {.kind = CALL_ALL_GATHER, .size = bytes, .send = send};

    return exchange((struct local_group *)base, &call, recv, 0, queue);
}

static enum tca_status all_to_all(struct comm_group *base, void *recv, const void *send,
                                  size_t bytes_per_rank, struct kernel_queue *queue)
{
    struct call call = {.kind = CALL_ALL_TO_ALL, .size = bytes_per_rank, .send = send};

    return exchange((struct local_group *)base, &call, recv, (size_t)base->rank * bytes_per_rank,
                    queue);
}

static enum tca_status broadcast(struct comm_group *base, void *buf, size_t bytes, int root,
                                 int timeout_ms)
{
    struct local_group *group = (struct local_group *)base;
    struct call call = {.kind = CALL_BROADCAST, .size = bytes, .root = root, .buf = buf};

    TCA_TRY(arrive(group, &call, timeout_ms));
    if (base->rank != root && bytes > 0)
        memcpy(buf, group->world->call[root].buf, bytes);
    leave(group);
    return TCA_OK;
}

static enum tca_status gather(struct comm_group *base, void *recv, const void *send, size_t bytes,
                              int root, int timeout_ms)
{
    struct local_group *group = (struct local_group *)base;
    struct call call = {.kind = CALL_GATHER, .size = bytes, .root = root, .buf = recv};

    TCA_TRY(arrive(group, &call, timeout_ms));
    if (bytes > 0)
        memcpy((char *)group->world->call[root].buf + (size_t)base->rank * bytes, send, bytes);
    leave(group);
    return TCA_OK;
}

static enum tca_status poll_error(struct comm_group *base)
{
    struct world *world = ((struct local_group *)base)->world;
    bool has_failed;

    lock(world);
    has_failed = world->whole->has_failed;
    unlock(world);
    return has_failed ? TCA_ERR_COMM : TCA_OK;
}

static void abort_group(struct comm_group *base)
{
    struct world *world = ((struct local_group *)base)->world;

    lock(world);
    fail(world);
    unlock(world);
}

static void world_destroy(struct world *world)
{
    if (world->whole == world) {
        pthread_cond_destroy(&world->changed);
        pthread_mutex_destroy(&world->mutex);
    }
    free(world);
}

static void destroy(struct comm_group *base)
{
    struct local_group *group = (struct local_group *)base;
    struct world *world;
    bool is_last;

    if (group == NULL)
        return;
    world = group->world;
    lock(world);
    is_last = --world->users == 0;
    unlock(world);
    free(group);
    if (is_last)
        world_destroy(world);
}

/* Of some ranks of `world`. NULL: no memory. */
static struct world *part_create(const struct world *world, int ranks)
{
    struct world *part = calloc(1, sizeof(*part));

    if (part == NULL)
        return NULL;
    part->whole = world->whole;
    part->ranks = ranks;
    return part;
}

static enum tca_status split(struct comm_group *base, int first, int ranks,
                             struct comm_group **part_out)
{
    struct local_group *group = (struct local_group *)base;
    struct local_group *part = calloc(1, sizeof(*part));
    struct call call = {.kind = CALL_SPLIT, .part_first = first, .part_ranks = ranks};
    enum tca_status status;

    if (part != NULL && base->rank == first)
        call.part = part_create(group->world, ranks);
    status = arrive(group, &call, group->timeout_ms);
    if (status != TCA_OK) {
        free(call.part);
        free(part);
        return status;
    }
    status = TCA_ERR_NO_MEMORY;
    if (part != NULL) {
        part->base =
            (struct comm_group){.ops = base->ops, .rank = base->rank - first, .ranks = ranks};
        part->world = group->world->call[first].part;
        part->backend = group->backend;
        part->timeout_ms = group->timeout_ms;
        status = part->world == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
    }
    if (status == TCA_OK) {
        lock(part->world);
        part->world->users++;
        unlock(part->world);
    }
    leave(group); /* nobody destroys a part before all its ranks have it */
    if (status != TCA_OK) {
        free(part);
        return status;
    }
    *part_out = &part->base;
    return TCA_OK;
}

static const struct comm_ops local_ops = {
    .name = "local",
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

/* NULL: no memory. */
static struct world *world_create(int ranks)
{
    struct world *world = calloc(1, sizeof(*world));
    pthread_condattr_t attributes;

    if (world == NULL)
        return NULL;
    world->whole = world;
    world->ranks = ranks;
    pthread_mutex_init(&world->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&world->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return world;
}

enum tca_status comm_local_create(const struct kernel_backend *backend, int ranks, int timeout_ms,
                                  struct comm_group **groups_out)
{
    struct comm_group *groups[COMM_RANKS_MAX];
    struct world *world;

    if (ranks < 1 || ranks > COMM_RANKS_MAX)
        return TCA_ERR_INVALID;
    world = world_create(ranks);
    if (world == NULL)
        return TCA_ERR_NO_MEMORY;
    world->users = 1; /* this call, until all groups are made */
    for (int rank = 0; rank < ranks; rank++) {
        struct local_group *group = calloc(1, sizeof(*group));

        if (group == NULL)
            goto err_destroy;
        group->base = (struct comm_group){.ops = &local_ops, .rank = rank, .ranks = ranks};
        group->world = world;
        group->backend = backend;
        group->timeout_ms = timeout_ms;
        groups[rank] = &group->base;
        world->users++;
    }
    world->users--;
    memcpy(groups_out, groups, (size_t)ranks * sizeof(*groups));
    return TCA_OK;

err_destroy:
    while (--world->users > 0)
        free(groups[world->users - 1]);
    world_destroy(world);
    return TCA_ERR_NO_MEMORY;
}
