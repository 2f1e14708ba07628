#include "comm/nccl/pair_sum.h"

#include "comm/nccl/pair_sum_kernel.h"
#include "comm/reduce.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/driver.h"

#include <cudaTypedefs.h>

#include <stdlib.h>

enum { HALVES = 2, RANKS = 2, NUMBERS_BYTES = 256 };

/* A slot's sums are numbered from 1 on, and sum s goes to half s % HALVES of the peer's buffers.
 * Two are enough: a rank copies sum s + 2 after its add of s + 1 was done, for which the peer's
 * copy of s + 1 had come; and the peer copied that after its add of s had read what s + 2
 * overwrites. */
struct slot {
    void *buf; /* of the begun sum */
    size_t count;
    enum kernel_dtype dtype;
    uint32_t number;    /* of the last begun sum */
    cudaEvent_t copied; /* owned: buf was read */
};

struct pair_sum {
    const struct peer_memory *peers; /* borrowed */
    size_t offset;
    cudaStream_t side; /* owned: copies run here */
    cudaEvent_t ready; /* owned: the queue's stream has filled a buffer */
    PFN_cuStreamWriteValue32_v11070 write_number;
    struct slot slot[PAIR_SUM_SLOTS];
};

size_t pair_sum_bytes(void)
{
    return NUMBERS_BYTES + (size_t)PAIR_SUM_SLOTS * HALVES * PAIR_SUM_BYTES;
}

/* In the rank's memory: the number of the slot's last sum that has come, and where it came to. */
static uint32_t *number_of(const struct pair_sum *pair, int rank, int slot)
{
    return (uint32_t *)(void *)((char *)pair->peers->of[rank] + pair->offset) + slot;
}

static void *half_of(const struct pair_sum *pair, int rank, int slot, uint32_t number)
{
    const size_t index = (size_t)slot * HALVES + number % HALVES;

    return (char *)pair->peers->of[rank] + pair->offset + NUMBERS_BYTES + index * PAIR_SUM_BYTES;
}

static enum tca_status make_parts(struct pair_sum *pair)
{
    int least_priority, most_priority;

    TCA_TRY(cuda_status(cudaDeviceGetStreamPriorityRange(&least_priority, &most_priority),
                        "cudaDeviceGetStreamPriorityRange"));
    TCA_TRY(
        cuda_status(cudaStreamCreateWithPriority(&pair->side, cudaStreamNonBlocking, most_priority),
                    "cudaStreamCreate"));
    TCA_TRY(cuda_status(cudaEventCreateWithFlags(&pair->ready, cudaEventDisableTiming),
                        "cudaEventCreate"));
    for (int i = 0; i < PAIR_SUM_SLOTS; i++)
        TCA_TRY(cuda_status(cudaEventCreateWithFlags(&pair->slot[i].copied, cudaEventDisableTiming),
                            "cudaEventCreate"));
    return TCA_OK;
}

void pair_sum_destroy(struct pair_sum *pair)
{
    if (pair == NULL)
        return;
    for (int i = 0; i < PAIR_SUM_SLOTS; i++)
        if (pair->slot[i].copied != NULL)
            cudaEventDestroy(pair->slot[i].copied);
    if (pair->ready != NULL)
        cudaEventDestroy(pair->ready);
    if (pair->side != NULL)
        cudaStreamDestroy(pair->side);
    free(pair);
}

/* The peer sees the number after what was copied: a fence precedes it. */
static cudaError_t tell_number(struct pair_sum *pair, int slot, uint32_t number)
{
    const int peer = RANKS - 1 - pair->peers->rank;
    const CUdeviceptr to = (CUdeviceptr)(uintptr_t)number_of(pair, peer, slot);

    /* The driver numbers its errors as the run-time library does. */
    return (cudaError_t)pair->write_number(pair->side, to, number, CU_STREAM_WRITE_VALUE_DEFAULT);
}

/* Whether the driver writes numbers to the peer: 0, which is there. */
static bool can_tell(struct pair_sum *pair)
{
    if (cuda_driver_find("cuStreamWriteValue32", (void **)&pair->write_number) &&
        tell_number(pair, 0, 0) == cudaSuccess && cudaStreamSynchronize(pair->side) == cudaSuccess)
        return true;
    (void)cudaGetLastError();
    return false;
}

enum tca_status pair_sum_create(const struct peer_memory *peers, size_t offset,
                                struct pair_sum **pair_out)
{
    struct pair_sum *pair = calloc(1, sizeof(*pair));
    enum tca_status status;

    *pair_out = NULL;
    if (pair == NULL)
        return TCA_ERR_NO_MEMORY;
    *pair = (struct pair_sum){.peers = peers, .offset = offset};
    status = make_parts(pair);
    if (status != TCA_OK || !can_tell(pair)) {
        pair_sum_destroy(pair);
        return status;
    }
    *pair_out = pair;
    return TCA_OK;
}

cudaError_t pair_sum_begin(struct pair_sum *pair, int slot, void *buf, size_t count,
                           enum kernel_dtype dtype, cudaStream_t stream)
{
    struct slot *begun = &pair->slot[slot];
    const size_t bytes = count * reduce_element_bytes(dtype);
    cudaError_t code;
    void *to;

    begun->buf = buf;
    begun->count = count;
    begun->dtype = dtype;
    begun->number++;
    to = half_of(pair, RANKS - 1 - pair->peers->rank, slot, begun->number);
    code = cudaEventRecord(pair->ready, stream);
    if (code == cudaSuccess)
        code = cudaStreamWaitEvent(pair->side, pair->ready, 0);
    if (code == cudaSuccess)
        code = cudaMemcpyAsync(to, buf, bytes, cudaMemcpyDeviceToDevice, pair->side);
    if (code == cudaSuccess)
        code = tell_number(pair, slot, begun->number);
    return code == cudaSuccess ? cudaEventRecord(begun->copied, pair->side) : code;
}

cudaError_t pair_sum_await(struct pair_sum *pair, int slot, cudaStream_t stream,
                           const void **rest_out)
{
    const struct slot *begun = &pair->slot[slot];
    const int rank = pair->peers->rank;
    const struct pair_sum_args args = {.buf = begun->buf,
                                       .arrived = half_of(pair, rank, slot, begun->number),
                                       .number = number_of(pair, rank, slot),
                                       .wanted = begun->number,
                                       .wait = pair->peers->wait,
                                       .count = begun->count};
    const cudaError_t code = cudaStreamWaitEvent(stream, begun->copied, 0);

    if (code != cudaSuccess)
        return code;
    if (rest_out != NULL) {
        *rest_out = args.arrived;
        pair_sum_launch_wait(stream, &args);
    } else {
        pair_sum_launch(stream, &args, begun->dtype);
    }
    return cudaGetLastError();
}
