/* tca-bench-sums: how long a sum of bf16 over the GPUs of this host takes, one behind the other on
 * a queue, by comm/nccl as it is and by NCCL alone. mpirun starts it, a process for each GPU. */
#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"
#include "comm/mpi/comm_mpi.h"
#include "comm/nccl/comm_nccl.h"

#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 30000, BYTES_MOST = 32 << 20, WARM_UP = 200, SUMS = 2000 };

static const struct settings_table table = {.program = "mpirun -np GPUS tca-bench-sums"};

struct sums {
    const struct kernel_backend *backend;
    struct comm_group *control;
    struct comm_group *group;
    struct kernel_queue *queue;
    void *values; /* device [BYTES_MOST], owned: zeros, so that their sums are too */
};

static enum tca_status repeat(const struct sums *sums, size_t bytes, int times)
{
    for (int i = 0; i < times; i++)
        TCA_TRY(sums->group->ops->all_reduce_sum(
            sums->group, sums->values, bytes / sizeof(uint16_t), KERNEL_BF16, sums->queue));
    return sums->backend->queue_wait(sums->queue);
}

static enum tca_status measure(const struct sums *sums, const char *how)
{
    for (size_t bytes = 1 << 10; bytes <= BYTES_MOST; bytes *= 2) {
        int64_t start_ns;

        TCA_TRY(repeat(sums, bytes, WARM_UP));
        start_ns = clock_monotonic_ns();
        TCA_TRY(repeat(sums, bytes, SUMS));
        if (sums->group->rank == 0)
            printf("%d GPUs, %s: a sum of %8zu bytes in %.1f us\n", sums->group->ranks, how, bytes,
                   (double)(clock_monotonic_ns() - start_ns) / SUMS / 1000);
    }
    return TCA_OK;
}

/* No rank leaves while another still sums. */
static enum tca_status meet(struct comm_group *group)
{
    int32_t word = 0, words[COMM_RANKS_MAX];

    TCA_TRY(group->ops->gather(group, group->rank == 0 ? words : NULL, &word, sizeof(word), 0,
                               TIMEOUT_MS));
    return group->ops->broadcast(group, &word, sizeof(word), 0, TIMEOUT_MS);
}

static enum tca_status measure_group(struct sums *sums, enum comm_nccl_sums which, const char *how)
{
    struct tca_error error = {.text = ""};
    enum tca_status status = comm_nccl_create(sums->control, sums->control->rank, TIMEOUT_MS, which,
                                              &sums->group, &error);

    if (status != TCA_OK) {
        log_error("%s", error.text);
        return status;
    }
    status = measure(sums, how);
    if (status == TCA_OK)
        status = meet(sums->group);
    sums->group->ops->destroy(sums->group);
    return status;
}

static enum tca_status run(struct sums *sums)
{
    const int device = sums->control->rank;
    enum tca_status status;

    TCA_TRY(sums->backend->queue_create(device, 1, &sums->queue));
    status = sums->backend->alloc(device, BYTES_MOST, &sums->values);
    if (status == TCA_OK)
        status = sums->backend->zero(sums->queue, sums->values, BYTES_MOST);
    if (status == TCA_OK)
        status = measure_group(sums, COMM_NCCL_SUMS_OTHER, "as configured");
    if (status == TCA_OK)
        status = measure_group(sums, COMM_NCCL_SUMS_ALL, "by NCCL");
    sums->backend->queue_destroy(sums->queue);
    sums->backend->free(device, sums->values, BYTES_MOST);
    return status;
}

static int bench_all(const void *values, const struct settings_arguments *arguments)
{
    struct sums sums = {.backend = kernel_backend_cuda(0, NULL)};
    enum tca_status status = TCA_ERR_DEVICE;

    (void)values;
    (void)arguments;
    if (comm_mpi_create(kernel_backend_cpu(), TIMEOUT_MS, &sums.control) != TCA_OK)
        return EXIT_FAILURE;
    if (sums.backend == NULL)
        log_error("no GPU is usable here");
    else
        status = run(&sums);
    if (status != TCA_OK)
        sums.control->ops->abort(sums.control);
    sums.control->ops->destroy(sums.control);
    return status == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    log_init("tca-bench-sums", LOG_LEVEL_INFO);
    return settings_run(&table, argc, argv, NULL, bench_all);
}
