#include "comm/nccl/one_shot.h"

#include "base/log.h"
#include "comm/nccl/one_shot_kernel.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOST_BYTES = 65, HALVES = 2, PAGE_BYTES = 2 << 20 };

/* Numbers of sums wrap soon after the start, so that tests see it; 0 is what fresh memory holds. */
#define FIRST_SEQUENCE  (UINT32_MAX - 200)
#define SECOND_SEQUENCE 2 /* behind UINT32_MAX, and even as that is odd */

/* Received lines are [HALVES, ranks, ONE_SHOT_SLOT_BYTES] in the memory of each rank: by the parity of
 * the sum's number, then by who sends them. Two halves are enough: a rank writes the lines of sum s + 2
 * after all threads of its sum s + 1 have ended, for which some line of s + 1 had to come from this rank,
 * whatever the count; and this rank sent that after all threads of its sum s had ended, which read what
 * s + 2 overwrites. */
struct one_shot {
    int rank, ranks;
    uint64_t timeout_ns;
    void *memory[ONE_SHOT_RANKS_MAX]; /* each rank's lines; its own: owned, others': opened */
    uint32_t *broken;                 /* pinned, owned: also written by the device */
    uint32_t sequence;                /* of the next sum */
};

/* What the others need to know of a rank. */
struct card {
    char host[HOST_BYTES];
    unsigned char is_ready;
    cudaIpcMemHandle_t memory;
};

static size_t half_bytes(const struct one_shot *one_shot)
{
    return (size_t)one_shot->ranks * ONE_SHOT_SLOT_BYTES;
}

/* An error that is dealt with must not be found by who asks for that of a kernel. */
static bool worked(const struct one_shot *one_shot, cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError();
    log_info("rank %d: memory of other GPUs: %s: %s", one_shot->rank, what,
             cudaGetErrorString(code));
    return false;
}

/* Whole pages: no other allocation of this process lies in what the peers open. */
static bool allocate(struct one_shot *one_shot, cudaIpcMemHandle_t *handle_out)
{
    const size_t bytes = (HALVES * half_bytes(one_shot) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void **own = &one_shot->memory[one_shot->rank];
    void **broken = (void **)&one_shot->broken;

    if (!worked(one_shot, cudaMallocHost(broken, sizeof(*one_shot->broken)), "cudaMallocHost"))
        return false;
    *one_shot->broken = 0;
    return worked(one_shot, cudaMalloc(own, bytes), "cudaMalloc") &&
           worked(one_shot, cudaMemset(*own, 0, bytes), "cudaMemset") &&
           worked(one_shot, cudaDeviceSynchronize(), "cudaMemset") &&
           worked(one_shot, cudaIpcGetMemHandle(handle_out, *own), "cudaIpcGetMemHandle");
}

/* Opening fails also where the GPUs cannot reach one another. */
static bool open_peers(struct one_shot *one_shot, const struct card *cards)
{
    for (int rank = 0; rank < one_shot->ranks; rank++) {
        if (!cards[rank].is_ready || strcmp(cards[rank].host, cards[0].host) != 0)
            return false;
        if (rank != one_shot->rank &&
            !worked(one_shot,
                    cudaIpcOpenMemHandle(&one_shot->memory[rank], cards[rank].memory,
                                         cudaIpcMemLazyEnablePeerAccess),
                    "cudaIpcOpenMemHandle")) {
            one_shot->memory[rank] = NULL;
            return false;
        }
    }
    return true;
}

/* all_out: [ranks, bytes] on every rank. */
static enum tca_status exchange(struct comm_group *control, void *all_out, const void *own,
                                size_t bytes, int timeout_ms)
{
    TCA_TRY(control->ops->gather(control, control->rank == 0 ? all_out : NULL, own, bytes, 0,
                                 timeout_ms));
    return control->ops->broadcast(control, all_out, (size_t)control->ranks * bytes, 0, timeout_ms);
}

/* Whether every rank can write to every other. */
static enum tca_status connect_all(struct one_shot *one_shot, struct comm_group *control,
                                   int timeout_ms, bool *is_connected_out)
{
    struct card own = {.is_ready = 0}, cards[ONE_SHOT_RANKS_MAX];
    unsigned char is_open, are_open[ONE_SHOT_RANKS_MAX];

    gethostname(own.host, sizeof(own.host) - 1);
    own.is_ready = allocate(one_shot, &own.memory);
    TCA_TRY(exchange(control, cards, &own, sizeof(own), timeout_ms));
    is_open = open_peers(one_shot, cards);
    TCA_TRY(exchange(control, are_open, &is_open, sizeof(is_open), timeout_ms));
    *is_connected_out = memchr(are_open, 0, (size_t)control->ranks) == NULL;
    return TCA_OK;
}

enum tca_status one_shot_create(struct comm_group *control, int timeout_ms,
                                struct one_shot **one_shot_out)
{
    struct one_shot *one_shot;
    enum tca_status status;
    bool is_connected = false;

    *one_shot_out = NULL;
    if (control->ranks < 2 || control->ranks > ONE_SHOT_RANKS_MAX)
        return TCA_OK;
    one_shot = calloc(1, sizeof(*one_shot));
    if (one_shot == NULL)
        return TCA_ERR_NO_MEMORY;
    *one_shot = (struct one_shot){.rank = control->rank,
                                  .ranks = control->ranks,
                                  .timeout_ns = (uint64_t)timeout_ms * 1000000,
                                  .sequence = FIRST_SEQUENCE};
    status = connect_all(one_shot, control, timeout_ms, &is_connected);
    if (!is_connected) {
        one_shot_destroy(one_shot);
        return status;
    }
    *one_shot_out = one_shot;
    return TCA_OK;
}

bool one_shot_takes(const struct one_shot *one_shot, size_t bytes)
{
    return one_shot != NULL && bytes <= ONE_SHOT_BYTES;
}

/* Before its number comes a second time, a half forgets what it holds: a line of a long sum may have
 * been left alone since. No peer writes into the half of the next sum before this rank's own begins. */
static cudaError_t forget(const struct one_shot *one_shot, cudaStream_t stream)
{
    char *own = one_shot->memory[one_shot->rank];

    if (one_shot->sequence < UINT32_MAX - 1)
        return cudaSuccess;
    return cudaMemsetAsync(own + (one_shot->sequence + 1) % HALVES * half_bytes(one_shot), 0,
                           half_bytes(one_shot), stream);
}

cudaError_t one_shot_sum(struct one_shot *one_shot, void *buf, size_t count,
                         enum kernel_dtype dtype, cudaStream_t stream)
{
    const size_t half = one_shot->sequence % HALVES * half_bytes(one_shot);
    struct one_shot_args args = {.buf = buf,
                                 .broken = one_shot->broken,
                                 .timeout_ns = one_shot->timeout_ns,
                                 .sequence = one_shot->sequence,
                                 .rank = one_shot->rank,
                                 .ranks = one_shot->ranks,
                                 .count = (int)count};
    cudaError_t code = forget(one_shot, stream);

    if (code != cudaSuccess)
        return code;
    for (int rank = 0; rank < one_shot->ranks; rank++) {
        args.to[rank] =
            (char *)one_shot->memory[rank] + half + (size_t)one_shot->rank * ONE_SHOT_SLOT_BYTES;
        args.from[rank] =
            (char *)one_shot->memory[one_shot->rank] + half + (size_t)rank * ONE_SHOT_SLOT_BYTES;
    }
    one_shot->sequence =
        one_shot->sequence == UINT32_MAX ? SECOND_SEQUENCE : one_shot->sequence + 1;
    one_shot_launch(stream, &args, dtype);
    return cudaGetLastError();
}

bool one_shot_has_failed(const struct one_shot *one_shot)
{
    return one_shot != NULL && *(volatile uint32_t *)one_shot->broken != 0;
}

void one_shot_abort(struct one_shot *one_shot)
{
    if (one_shot != NULL)
        *(volatile uint32_t *)one_shot->broken = 1;
}

void one_shot_destroy(struct one_shot *one_shot)
{
    if (one_shot == NULL)
        return;
    for (int rank = 0; rank < one_shot->ranks; rank++)
        if (rank != one_shot->rank && one_shot->memory[rank] != NULL)
            (void)cudaIpcCloseMemHandle(one_shot->memory[rank]);
    cudaFree(one_shot->memory[one_shot->rank]);
    cudaFreeHost(one_shot->broken);
    free(one_shot);
}
