/* One rank of the tests of comm/nccl, on a GPU of its own: checks the sums and the control
 * messages, or that a rank which does not take part is noticed. Exit status 0: this rank saw what
 * it should see; 77: too few GPUs. */
#include "tests/support/check.h"
#include "tests/support/collectives.h"

#include "base/bf16.h"
#include "base/clock.h"
#include "base/log.h"
#include "comm/mpi/comm_mpi.h"
#include "comm/nccl/comm_nccl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 8000, ABSENCE_MS = 20000, COUNT_MAX = 300007 };

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

/* The last rank is missing from a sum that the others have begun. */
static const char *miss_last_rank(const struct rank *rank, void *device)
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
    if (group->ops->all_reduce_sum(group, device, 1000, KERNEL_F32, rank->queue) == TCA_OK)
        (void)rank->backend->queue_wait(rank->queue);
    if (clock_monotonic_ms() - start_ms > (TIMEOUT_MS + ABSENCE_MS) / 2)
        return "the wait did not end in time";
    if (group->ops->poll_error(group) != TCA_ERR_COMM ||
        group->ops->broadcast(group, &word, sizeof(word), 0, TIMEOUT_MS) != TCA_ERR_COMM ||
        group->ops->all_reduce_sum(group, device, 1, KERNEL_F32, rank->queue) != TCA_ERR_COMM)
        return "the missing rank was not noticed";
    return NULL;
}

static const char *check_exchanges(const struct rank *rank, int device)
{
    struct collectives_device where = {
        .backend = rank->backend, .index = device, .queue = rank->queue};
    const char *fault = collectives_check_exchange(rank->group, &where);

    return fault == NULL ? collectives_check_parts(rank->group, &where) : fault;
}

static const char *check(struct comm_group *control, bool is_loss)
{
    struct rank rank = {.backend = kernel_backend_cuda()};
    void *host = calloc(COUNT_MAX + 1, sizeof(float));
    struct tca_error error = {.text = ""};
    const char *fault = NULL;
    void *device = NULL;

    if (host == NULL || rank.backend->queue_create(control->rank, 1, &rank.queue) != TCA_OK ||
        rank.backend->alloc(control->rank, (COUNT_MAX + 1) * sizeof(float), &device) != TCA_OK ||
        comm_nccl_create(control, control->rank, TIMEOUT_MS, &rank.group, &error) != TCA_OK) {
        fprintf(stderr, "%s\n", error.text);
        free(host);
        return "the group could not be made";
    }
    fault = is_loss ? miss_last_rank(&rank, device) : check_collectives(&rank, device, host);
    if (!is_loss && fault == NULL)
        fault = check_exchanges(&rank, control->rank);
    rank.backend->queue_destroy(rank.queue);
    rank.group->ops->destroy(rank.group);
    rank.backend->free(control->rank, device, (COUNT_MAX + 1) * sizeof(float));
    free(host);
    return fault;
}

int main(int argc, char **argv)
{
    const struct kernel_backend *backend = kernel_backend_cuda();
    struct comm_group *control;
    const char *fault;
    size_t total, left;

    log_init("rank", LOG_LEVEL_INFO);
    if (comm_mpi_create(kernel_backend_cpu(), 4 * TIMEOUT_MS, &control) != TCA_OK)
        return EXIT_FAILURE;
    if (backend == NULL || backend->memory(control->ranks - 1, &total, &left) != TCA_OK) {
        printf("fewer than %d GPUs\n", control->ranks);
        control->ops->destroy(control);
        return TEST_SKIPPED;
    }
    fault = check(control, argc == 2 && strcmp(argv[1], "loss") == 0);
    printf("rank %d: %s\n", control->rank, fault != NULL ? fault : "right");
    control->ops->destroy(control);
    return fault == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
}
