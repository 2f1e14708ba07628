/* One rank of the tests of comm/nccl, on a GPU of its own: checks sums, exchanges and control
 * messages, small sums through the peers' memory among large ones, or that a rank which does not
 * take part is noticed, in a sum, in a large one, with more behind it than a stream holds, in begun
 * ones or in a part. Usage: comm_nccl_ranks CHECK [nccl]: all sums by NCCL. Exit status 0: this
 * rank saw what it should see; 77: too few GPUs. */
#include "tests/support/check.h"
#include "tests/support/collectives.h"

#include "base/bf16.h"
#include "base/clock.h"
#include "base/log.h"
#include "comm/mpi/comm_mpi.h"
#include "comm/nccl/comm_nccl.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 8000, ABSENCE_MS = 13000, COUNT_MAX = 300007 };
/* f32 elements that are too many for the peers' memory, and launches too many for a stream. */
enum { HUGE_COUNT = 9 << 20, LAUNCHES = 3000 };

struct rank {
    const struct kernel_backend *backend;
    struct kernel_queue *queue;
    struct comm_group *group;
};

/* Small whole numbers: every sum is exact in f32 and, up to 256, in bf16. */
static int exact_value(size_t i, int rank)
{
    return (int)(i * 7 + (size_t)rank * 13) % 31 - 15;
}

static float read_value(const void *buf, size_t i, enum kernel_dtype dtype)
{
    const float *f32 = buf;
    const uint16_t *bf16 = buf;

    return dtype == KERNEL_F32 ? f32[i] : bf16_to_float(bf16[i]);
}

/* One element after the end must keep its value. */
static const char *compare_sum(const struct rank *rank, const void *buf, size_t count,
                               enum kernel_dtype dtype)
{
    for (size_t i = 0; i <= count; i++) {
        int expected = i < count ? 0 : exact_value(i, rank->group->rank);
        float value = read_value(buf, i, dtype);

        for (int other = 0; i < count && other < rank->group->ranks; other++)
            expected += exact_value(i, other);
        if (value < (float)expected || value > (float)expected)
            return i < count ? "wrong sum" : "wrote past the end";
    }
    return NULL;
}

static const char *check_sum(const struct rank *rank, void *device, void *host, size_t count,
                             enum kernel_dtype dtype)
{
    size_t bytes = (count + 1) * (dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t));
    float *f32 = host;
    uint16_t *bf16 = host;

    for (size_t i = 0; i <= count; i++) {
        float value = (float)exact_value(i, rank->group->rank);

        if (dtype == KERNEL_F32)
            f32[i] = value;
        else
            bf16[i] = bf16_from_float(value);
    }
    if (rank->backend->upload(rank->queue, device, host, bytes) != TCA_OK ||
        rank->group->ops->all_reduce_sum(rank->group, device, count, dtype, rank->queue) !=
            TCA_OK ||
        rank->backend->download(rank->queue, host, device, bytes) != TCA_OK)
        return "a sum failed";
    return compare_sum(rank, host, count, dtype);
}

static const char *check_collectives(const struct rank *rank, void *device, void *host)
{
    static const size_t counts[] = {0, 1, 2, 15, 17, 576, 8192, 8193, COUNT_MAX};
    const char *fault = NULL;

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]) && fault == NULL; i++) {
        fault = check_sum(rank, device, host, counts[i], KERNEL_F32);
        if (fault == NULL)
            fault = check_sum(rank, device, host, counts[i], KERNEL_BF16);
    }
    return fault == NULL ? collectives_check_control(rank->group) : fault;
}

enum { TURNS = 6, SOURCES = 3, BALLAST = 20, ROWS = 2048, COLS = 1024, VALUES = ROWS * COLS };

/* Deltas are summed over the ranks and added to rows, as in a layer: one
 * slot beside the other's. */
struct begun {
    uint16_t *source[SOURCES];   /* device [ROWS, COLS] bf16, owned */
    uint16_t *delta[COMM_SLOTS]; /* device [ROWS, COLS] bf16, owned */
    float *rows[COMM_SLOTS];     /* device [ROWS, COLS] f32, owned */
    float *ballast;              /* device [ROWS, COLS] f32, owned */
    float *word;                 /* device [1], owned */
    float *host;                 /* [ROWS, COLS], owned */
};

static int source_of(int turn, int slot)
{
    return (turn + slot) % SOURCES;
}

static enum tca_status alloc(const struct rank *rank, size_t bytes, void **out)
{
    TCA_TRY(rank->backend->alloc(rank->group->rank, bytes, out));
    return rank->backend->zero(rank->queue, *out, bytes);
}

static enum tca_status open_begun(const struct rank *rank, struct begun *begun)
{
    const size_t f32 = VALUES * sizeof(float), bf16 = VALUES * sizeof(uint16_t);
    const float one = 1.0F;

    begun->host = malloc(f32);
    if (begun->host == NULL)
        return TCA_ERR_NO_MEMORY;
    for (int i = 0; i < SOURCES; i++) {
        uint16_t *values = (uint16_t *)begun->host;

        for (size_t v = 0; v < VALUES; v++)
            values[v] = bf16_from_float((float)exact_value(v + (size_t)i, rank->group->rank));
        TCA_TRY(alloc(rank, bf16, (void **)&begun->source[i]));
        TCA_TRY(rank->backend->upload(rank->queue, begun->source[i], values, bf16));
    }
    for (int slot = 0; slot < COMM_SLOTS; slot++) {
        TCA_TRY(alloc(rank, bf16, (void **)&begun->delta[slot]));
        TCA_TRY(alloc(rank, f32, (void **)&begun->rows[slot]));
    }
    TCA_TRY(alloc(rank, f32, (void **)&begun->ballast));
    TCA_TRY(alloc(rank, sizeof(one), (void **)&begun->word));
    return rank->backend->upload(rank->queue, begun->word, &one, sizeof(one));
}

static void close_begun(const struct rank *rank, const struct begun *begun)
{
    const struct kernel_backend *backend = rank->backend;
    const int device = rank->group->rank;

    for (int i = 0; i < SOURCES; i++)
        backend->free(device, begun->source[i], VALUES * sizeof(uint16_t));
    for (int slot = 0; slot < COMM_SLOTS; slot++) {
        backend->free(device, begun->delta[slot], VALUES * sizeof(uint16_t));
        backend->free(device, begun->rows[slot], VALUES * sizeof(float));
    }
    backend->free(device, begun->ballast, VALUES * sizeof(float));
    backend->free(device, begun->word, sizeof(float));
    free(begun->host);
}

static enum tca_status add(const struct rank *rank, float *rows, const uint16_t *delta)
{
    return rank->backend->residual_norm(rank->queue, NULL, rows, delta, NULL, NULL, ROWS, COLS,
                                        1e-5F);
}

/* Waits for nothing: the queue lags behind, so that a sum which does not wait for it finds the
 * delta of the turn before, and an addition which does not wait for the sum finds the parts. */
static enum tca_status enqueue_turn(const struct rank *rank, const struct begun *begun, int turn)
{
    struct comm_group *group = rank->group;

    for (int slot = 0; slot < COMM_SLOTS; slot++) {
        for (int i = 0; i < BALLAST; i++)
            TCA_TRY(add(rank, begun->ballast, begun->source[0]));
        TCA_TRY(rank->backend->copy(rank->queue, begun->delta[slot],
                                    begun->source[source_of(turn, slot)],
                                    VALUES * sizeof(uint16_t)));
        TCA_TRY(group->ops->all_reduce_begin(group, slot, begun->delta[slot], VALUES, KERNEL_BF16,
                                             rank->queue));
    }
    TCA_TRY(group->ops->all_reduce_sum(group, begun->word, 1, KERNEL_F32, rank->queue));
    for (int slot = 0; slot < COMM_SLOTS; slot++) {
        TCA_TRY(group->ops->all_reduce_await(group, slot, rank->queue, NULL));
        TCA_TRY(add(rank, begun->rows[slot], begun->delta[slot]));
    }
    return TCA_OK;
}

static const char *compare_begun(const struct rank *rank, const struct begun *begun, int slot)
{
    if (rank->backend->download(rank->queue, begun->host, begun->rows[slot],
                                VALUES * sizeof(float)) != TCA_OK)
        return "begun sums failed";
    for (size_t v = 0; v < VALUES; v++) {
        int expected = 0;

        for (int turn = 0; turn < TURNS; turn++)
            for (int other = 0; other < rank->group->ranks; other++)
                expected += exact_value(v + (size_t)source_of(turn, slot), other);
        if (begun->host[v] < (float)expected || begun->host[v] > (float)expected)
            return "wrong begun sum";
    }
    return NULL;
}

static const char *run_begun(const struct rank *rank, const struct begun *begun)
{
    const uint64_t ranks = (uint64_t)rank->group->ranks, sent = rank->group->sent_bytes;
    const uint64_t delta = 2 * VALUES * sizeof(uint16_t) * (ranks - 1) / ranks;
    const uint64_t word = 2 * sizeof(float) * (ranks - 1) / ranks;
    float expected = 1.0F, value = 0.0F;
    const char *fault = NULL;

    for (int turn = 0; turn < TURNS; turn++) {
        if (enqueue_turn(rank, begun, turn) != TCA_OK)
            return "begun sums failed";
        expected *= (float)ranks;
    }
    for (int slot = 0; slot < COMM_SLOTS && fault == NULL; slot++)
        fault = compare_begun(rank, begun, slot);
    if (fault == NULL &&
        rank->backend->download(rank->queue, &value, begun->word, sizeof(value)) != TCA_OK)
        fault = "begun sums failed";
    if (fault == NULL && (value < expected || value > expected))
        fault = "wrong sum beside begun ones";
    if (fault == NULL && rank->group->sent_bytes - sent != TURNS * (COMM_SLOTS * delta + word))
        fault = "the bytes of begun sums were counted wrong";
    return fault;
}

static const char *check_begun(const struct rank *rank)
{
    struct begun begun = {.host = NULL};
    const char *fault = open_begun(rank, &begun) == TCA_OK ? NULL : "no memory";

    if (fault == NULL)
        fault = run_begun(rank, &begun);
    close_begun(rank, &begun);
    return fault;
}

/* Numbers whose sums are rounded, in f32 and in bf16. */
static float rough_value(size_t i, int rank, enum kernel_dtype dtype)
{
    const uint32_t mixed = ((uint32_t)i * 2654435761U) ^ ((uint32_t)(rank + 1) * 40503U << 7);
    const float value = (float)(int)(mixed >> 8) / 65536.0F - 100.0F;

    return dtype == KERNEL_F32 ? value : bf16_to_float(bf16_from_float(value));
}

static void write_value(void *buf, size_t i, float value, enum kernel_dtype dtype)
{
    if (dtype == KERNEL_F32)
        ((float *)buf)[i] = value;
    else
        ((uint16_t *)buf)[i] = bf16_from_float(value);
}

/* Added in the order of the ranks, and rounded once. */
static float rough_sum(const struct rank *rank, size_t i, enum kernel_dtype dtype)
{
    float sum = rough_value(i, 0, dtype);

    for (int other = 1; other < rank->group->ranks; other++)
        sum += rough_value(i, other, dtype);
    return dtype == KERNEL_F32 ? sum : bf16_to_float(bf16_from_float(sum));
}

/* One sum behind the other, of many sizes: some too large for one kernel, which go by copies where
 * they are aligned, as every other one is, and else by NCCL. More turns than a buffer for received
 * values lasts without being cleared. */
static const size_t ROUGH_COUNTS[] = {1, 3, 8, 1000, 577, 150000, 4096, 65536, 65537};
enum {
    ROUGH_SIZES = sizeof(ROUGH_COUNTS) / sizeof(ROUGH_COUNTS[0]),
    ROUGH_SUMS = ROUGH_SIZES * 40,
    ROUGH_ALIGNMENT = 8, /* elements */
};

/* The elements of sum `turn`, which begins at `first` or, every other one, at the next multiple. */
static size_t rough_first(size_t first, int turn)
{
    return turn % 2 == 0 ? first
                         : (first + ROUGH_ALIGNMENT - 1) / ROUGH_ALIGNMENT * ROUGH_ALIGNMENT;
}

static size_t rough_end(size_t first, int turn)
{
    return rough_first(first, turn) + ROUGH_COUNTS[turn % ROUGH_SIZES];
}

static size_t rough_total(void)
{
    size_t total = 0;

    for (int turn = 0; turn < ROUGH_SUMS; turn++)
        total = rough_end(total, turn);
    return total;
}

static enum tca_status enqueue_rough(const struct rank *rank, char *device, enum kernel_dtype dtype)
{
    const size_t bytes = dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
    size_t end = 0;

    for (int turn = 0; turn < ROUGH_SUMS; turn++) {
        TCA_TRY(
            rank->group->ops->all_reduce_sum(rank->group, device + rough_first(end, turn) * bytes,
                                             ROUGH_COUNTS[turn % ROUGH_SIZES], dtype, rank->queue));
        end = rough_end(end, turn);
    }
    return TCA_OK;
}

/* first .. end - 1 of what came back were summed. */
static const char *compare_rough(const struct rank *rank, const void *host, size_t first,
                                 size_t end, enum kernel_dtype dtype)
{
    for (size_t i = first; i < end; i++) {
        float expected = rough_sum(rank, i, dtype), value = read_value(host, i, dtype);

        if (value < expected || value > expected) {
            printf("rank %d: element %zu of a sum of %zu: %a, not %a\n", rank->group->rank,
                   i - first, end - first, (double)value, (double)expected);
            return "wrong sum among many";
        }
    }
    return NULL;
}

static const char *run_rough(const struct rank *rank, void *device, void *host,
                             enum kernel_dtype dtype)
{
    const size_t total = rough_total();
    const size_t bytes = total * (dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t));
    const char *fault = NULL;
    size_t end = 0;

    for (size_t i = 0; i < total; i++)
        write_value(host, i, rough_value(i, rank->group->rank, dtype), dtype);
    if (rank->backend->upload(rank->queue, device, host, bytes) != TCA_OK ||
        enqueue_rough(rank, device, dtype) != TCA_OK ||
        rank->backend->download(rank->queue, host, device, bytes) != TCA_OK)
        return "a sum among many failed";
    for (int turn = 0; fault == NULL && turn < ROUGH_SUMS; turn++) {
        fault = compare_rough(rank, host, rough_first(end, turn), rough_end(end, turn), dtype);
        end = rough_end(end, turn);
    }
    return fault;
}

/* A row of a decode step: each sum reads what the kernel before it wrote and is read by the next
 * one, which all begin early. */
static const char *run_chain(const struct rank *rank, float *rows, uint16_t *delta, float *host)
{
    enum { CHAIN = 100, CHAIN_ROWS = 4, CHAIN_VALUES = CHAIN_ROWS * COLS };
    const size_t bytes = CHAIN_VALUES * sizeof(float);
    uint16_t *values = (uint16_t *)host;

    for (size_t i = 0; i < CHAIN_VALUES; i++)
        values[i] = bf16_from_float(rough_value(i, rank->group->rank, KERNEL_BF16));
    if (rank->backend->upload(rank->queue, delta, values, CHAIN_VALUES * sizeof(uint16_t)) !=
            TCA_OK ||
        rank->backend->zero(rank->queue, rows, bytes) != TCA_OK)
        return "no chain";
    for (int turn = 0; turn < CHAIN; turn++)
        if (rank->backend->residual_norm(rank->queue, NULL, rows, delta, NULL, NULL, CHAIN_ROWS,
                                         COLS, 1e-5F) != TCA_OK ||
            rank->group->ops->all_reduce_sum(rank->group, rows, CHAIN_VALUES, KERNEL_F32,
                                             rank->queue) != TCA_OK)
            return "a sum in a chain failed";
    if (rank->backend->download(rank->queue, host, rows, bytes) != TCA_OK)
        return "a sum in a chain failed";
    for (size_t i = 0; i < CHAIN_VALUES; i++) {
        float expected = 0.0F;

        for (int turn = 0; turn < CHAIN; turn++) {
            float before = expected;

            expected = before + rough_value(i, 0, KERNEL_BF16);
            for (int other = 1; other < rank->group->ranks; other++)
                expected += before + rough_value(i, other, KERNEL_BF16);
        }
        if (host[i] < expected || host[i] > expected)
            return "wrong sum in a chain";
    }
    return NULL;
}

static const char *check_small(const struct rank *rank)
{
    const size_t bytes = rough_total() * sizeof(float);
    const char *fault = "no memory";
    void *host = malloc(bytes), *device = NULL;

    if (host != NULL && alloc(rank, bytes, &device) == TCA_OK)
        fault = run_rough(rank, device, host, KERNEL_F32);
    if (fault == NULL)
        fault = run_rough(rank, device, host, KERNEL_BF16);
    if (fault == NULL)
        fault = run_chain(rank, device, (uint16_t *)((char *)device + bytes / 2 / 64 * 64), host);
    rank->backend->free(rank->group->rank, device, bytes);
    free(host);
    return fault;
}

/* Two sums under way, one of them awaited; or one on the queue. */
/* full_loss: a sum that is NCCL's in any case, and behind it more than a stream has room for. */
static enum tca_status enqueue_missed(const struct rank *rank, float *device, const char *what)
{
    struct comm_group *group = rank->group;
    const bool is_full = strcmp(what, "full_loss") == 0;
    const bool is_large = strcmp(what, "large_loss") == 0;

    if (is_full || is_large || strcmp(what, "loss") == 0)
        TCA_TRY(group->ops->all_reduce_sum(group, device,
                                           is_full    ? HUGE_COUNT
                                           : is_large ? COUNT_MAX
                                                      : 1000,
                                           KERNEL_F32, rank->queue));
    for (int i = 0; is_full && i < LAUNCHES; i++)
        TCA_TRY(group->ops->all_reduce_sum(group, device, 1000, KERNEL_F32, rank->queue));
    if (strcmp(what, "begun_loss") != 0)
        return TCA_OK;
    for (int slot = 0; slot < COMM_SLOTS; slot++)
        TCA_TRY(group->ops->all_reduce_begin(group, slot, device + 1000 * slot, 1000, KERNEL_F32,
                                             rank->queue));
    return group->ops->all_reduce_await(group, 0, rank->queue, NULL);
}

/* The last rank is missing from sums that the others have begun. */
static const char *miss_last_rank(const struct rank *rank, void *device, const char *what)
{
    struct comm_group *group = rank->group;
    int64_t start_ms;
    uint32_t word = 0;

    if (group->ops->all_reduce_sum(group, device, 1000, KERNEL_F32, rank->queue) != TCA_OK ||
        rank->backend->queue_wait(rank->queue) != TCA_OK)
        return "the first sum failed";
    if (group->rank == group->ranks - 1) {
        clock_sleep_ms(ABSENCE_MS);
        return NULL;
    }
    start_ms = clock_monotonic_ms();
    if (enqueue_missed(rank, device, what) == TCA_OK)
        (void)rank->backend->queue_wait(rank->queue);
    if (clock_monotonic_ms() - start_ms > (TIMEOUT_MS + ABSENCE_MS) / 2)
        return "the wait did not end in time";
    if (group->ops->poll_error(group) != TCA_ERR_COMM ||
        group->ops->broadcast(group, &word, sizeof(word), 0, TIMEOUT_MS) != TCA_ERR_COMM ||
        group->ops->all_reduce_sum(group, device, 1, KERNEL_F32, rank->queue) != TCA_ERR_COMM ||
        group->ops->all_reduce_begin(group, 0, device, 1, KERNEL_F32, rank->queue) !=
            TCA_ERR_COMM ||
        group->ops->all_reduce_await(group, 0, rank->queue, NULL) != TCA_ERR_COMM)
        return "the missing rank was not noticed";
    return NULL;
}

/* From every rank, in a part that is all of the group. */
static enum tca_status exchange_in(const struct rank *rank, struct comm_group *part, char *device)
{
    enum { BYTES = 4000 };

    TCA_TRY(part->ops->all_gather(part, device, device + part->rank * BYTES, BYTES, rank->queue));
    return rank->backend->queue_wait(rank->queue);
}

/* The same in a part, which fails its group. */
static const char *miss_last_rank_of(const struct rank *rank, struct comm_group *part, void *device)
{
    struct comm_group *group = rank->group;
    int64_t start_ms;

    if (exchange_in(rank, part, device) != TCA_OK)
        return "the first exchange failed";
    if (group->rank == group->ranks - 1) {
        clock_sleep_ms(ABSENCE_MS);
        return NULL;
    }
    start_ms = clock_monotonic_ms();
    (void)exchange_in(rank, part, device);
    if (clock_monotonic_ms() - start_ms > (TIMEOUT_MS + ABSENCE_MS) / 2)
        return "the wait did not end in time";
    if (part->ops->poll_error(part) != TCA_ERR_COMM ||
        group->ops->poll_error(group) != TCA_ERR_COMM ||
        group->ops->all_reduce_sum(group, device, 1, KERNEL_F32, rank->queue) != TCA_ERR_COMM)
        return "the missing rank was not noticed";
    return NULL;
}

static const char *miss_in_part(const struct rank *rank, void *device)
{
    struct comm_group *part;
    const char *fault;

    if (rank->group->ops->split(rank->group, 0, rank->group->ranks, &part) != TCA_OK)
        return "split failed";
    fault = miss_last_rank_of(rank, part, device);
    part->ops->destroy(part);
    return fault;
}

static const char *check_exchanges(const struct rank *rank, int device)
{
    struct collectives_device where = {
        .backend = rank->backend, .index = device, .queue = rank->queue};
    const char *fault = collectives_check_exchange(rank->group, &where);

    return fault == NULL ? collectives_check_parts(rank->group, &where) : fault;
}

static const char *run_check(const struct rank *rank, const char *what, void *device, void *host)
{
    const char *fault;

    if (strcmp(what, "loss_in_part") == 0)
        return miss_in_part(rank, device);
    if (strcmp(what, "small") == 0)
        return check_small(rank);
    if (strcmp(what, "collectives") != 0)
        return miss_last_rank(rank, device, what);
    fault = check_collectives(rank, device, host);
    if (fault == NULL)
        fault = check_begun(rank);
    return fault == NULL ? check_exchanges(rank, rank->queue->device) : fault;
}

static const char *check(struct comm_group *control, const char *what, enum comm_nccl_sums sums)
{
    struct rank rank = {.backend = kernel_backend_cuda(control->rank, NULL)};
    void *host = calloc(COUNT_MAX + 1, sizeof(float));
    struct tca_error error = {.text = ""};
    const char *fault = NULL;
    void *device = NULL;

    if (host == NULL || rank.backend->queue_create(control->rank, 1, &rank.queue) != TCA_OK ||
        rank.backend->alloc(control->rank, HUGE_COUNT * sizeof(float), &device) != TCA_OK ||
        comm_nccl_create(control, control->rank, TIMEOUT_MS, sums, &rank.group, &error) != TCA_OK) {
        fprintf(stderr, "%s\n", error.text);
        free(host);
        return "the group could not be made";
    }
    fault = run_check(&rank, what, device, host);
    rank.backend->queue_destroy(rank.queue);
    rank.group->ops->destroy(rank.group);
    rank.backend->free(control->rank, device, HUGE_COUNT * sizeof(float));
    free(host);
    return fault;
}

int main(int argc, char **argv)
{
    struct comm_group *control;
    const char *fault;

    log_init("rank", LOG_LEVEL_INFO);
    if (comm_mpi_create(kernel_backend_cpu(), 4 * TIMEOUT_MS, &control) != TCA_OK)
        return EXIT_FAILURE;
    if (kernel_backend_cuda(control->ranks - 1, NULL) == NULL) {
        printf("fewer than %d GPUs\n", control->ranks);
        control->ops->destroy(control);
        return TEST_SKIPPED;
    }
    fault = check(control, argc >= 2 ? argv[1] : "collectives",
                  argc >= 3 ? COMM_NCCL_SUMS_ALL : COMM_NCCL_SUMS_OTHER);
    printf("rank %d: %s\n", control->rank, fault != NULL ? fault : "right");
    control->ops->destroy(control);
    return fault == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
}
