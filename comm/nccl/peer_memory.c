#include "comm/nccl/peer_memory.h"

#include "base/log.h"

#include <cuda_runtime_api.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOST_BYTES = 65, PAGE_BYTES = 2 << 20 };

/* What the others need to know of a rank. */
struct card {
    char host[HOST_BYTES];
    unsigned char is_ready;
    cudaIpcMemHandle_t memory;
};

/* An error that is dealt with must not be found by who asks for that of a kernel. */
static bool worked(const struct peer_memory *memory, cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError();
    log_info("rank %d: memory of other GPUs: %s: %s", memory->rank, what, cudaGetErrorString(code));
    return false;
}

/* Whole pages: no other allocation of this process lies in what the peers open. */
static bool allocate(struct peer_memory *memory, size_t wanted, cudaIpcMemHandle_t *handle_out)
{
    const size_t bytes = (wanted + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void **own = &memory->of[memory->rank];
    void **broken = (void **)&memory->wait.broken;

    if (!worked(memory, cudaMallocHost(broken, sizeof(*memory->wait.broken)), "cudaMallocHost"))
        return false;
    *memory->wait.broken = 0;
    return worked(memory, cudaMalloc(own, bytes), "cudaMalloc") &&
           worked(memory, cudaMemset(*own, 0, bytes), "cudaMemset") &&
           worked(memory, cudaDeviceSynchronize(), "cudaMemset") &&
           worked(memory, cudaIpcGetMemHandle(handle_out, *own), "cudaIpcGetMemHandle");
}

/* Opening fails also where the GPUs cannot reach one another. */
static bool open_peers(struct peer_memory *memory, const struct card *cards)
{
    for (int rank = 0; rank < memory->ranks; rank++) {
        if (!cards[rank].is_ready || strcmp(cards[rank].host, cards[0].host) != 0)
            return false;
        if (rank != memory->rank &&
            !worked(memory,
                    cudaIpcOpenMemHandle(&memory->of[rank], cards[rank].memory,
                                         cudaIpcMemLazyEnablePeerAccess),
                    "cudaIpcOpenMemHandle")) {
            memory->of[rank] = NULL;
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

enum tca_status peer_memory_agree(struct comm_group *control, bool own, int timeout_ms,
                                  bool *all_out)
{
    unsigned char mine = own, all[COMM_RANKS_MAX];

    TCA_TRY(exchange(control, all, &mine, sizeof(mine), timeout_ms));
    *all_out = memchr(all, 0, (size_t)control->ranks) == NULL;
    return TCA_OK;
}

/* Whether every rank can write to every other. */
static enum tca_status connect_all(struct peer_memory *memory, struct comm_group *control,
                                   size_t bytes, int timeout_ms, bool *is_connected_out)
{
    struct card own = {.is_ready = 0}, cards[PEERS_MOST];

    gethostname(own.host, sizeof(own.host) - 1);
    own.is_ready = allocate(memory, bytes, &own.memory);
    TCA_TRY(exchange(control, cards, &own, sizeof(own), timeout_ms));
    return peer_memory_agree(control, open_peers(memory, cards), timeout_ms, is_connected_out);
}

enum tca_status peer_memory_create(struct comm_group *control, size_t bytes, int timeout_ms,
                                   struct peer_memory **memory_out)
{
    struct peer_memory *memory;
    enum tca_status status;
    bool is_connected = false;

    *memory_out = NULL;
    if (control->ranks < 2 || control->ranks > PEERS_MOST)
        return TCA_OK;
    memory = calloc(1, sizeof(*memory));
    if (memory == NULL)
        return TCA_ERR_NO_MEMORY;
    *memory = (struct peer_memory){.rank = control->rank,
                                   .ranks = control->ranks,
                                   .wait.timeout_ns = (uint64_t)timeout_ms * 1000000};
    status = connect_all(memory, control, bytes, timeout_ms, &is_connected);
    if (!is_connected) {
        peer_memory_destroy(memory);
        return status;
    }
    *memory_out = memory;
    return TCA_OK;
}

bool peer_memory_has_failed(const struct peer_memory *memory)
{
    return memory != NULL && *(volatile uint32_t *)memory->wait.broken != 0;
}

void peer_memory_abort(struct peer_memory *memory)
{
    if (memory != NULL)
        *(volatile uint32_t *)memory->wait.broken = 1;
}

void peer_memory_destroy(struct peer_memory *memory)
{
    if (memory == NULL)
        return;
    for (int rank = 0; rank < memory->ranks; rank++)
        if (rank != memory->rank && memory->of[rank] != NULL)
            (void)cudaIpcCloseMemHandle(memory->of[rank]);
    cudaFree(memory->of[memory->rank]);
    cudaFreeHost(memory->wait.broken);
    free(memory);
}
