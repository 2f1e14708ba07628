#include "comm/nccl/peer_sums.h"

#include "comm/nccl/one_shot.h"
#include "comm/nccl/pair_sum.h"
#include "comm/reduce.h"

#include <stdlib.h>

enum { ALIGNMENT = 256, PIECE_BYTES = 16 };

struct peer_sums {
    struct peer_memory *memory; /* owned */
    struct one_shot small;
    struct pair_sum *pair; /* owned, or NULL */
};

static size_t small_bytes(int ranks)
{
    return (one_shot_bytes(ranks) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* All ranks have it, or none. */
static enum tca_status pair_up(struct peer_sums *sums, struct comm_group *control, int timeout_ms)
{
    bool have_all;

    if (pair_sum_create(sums->memory, small_bytes(control->ranks), &sums->pair) != TCA_OK)
        sums->pair = NULL;
    TCA_TRY(peer_memory_agree(control, sums->pair != NULL, timeout_ms, &have_all));
    if (have_all)
        return TCA_OK;
    pair_sum_destroy(sums->pair);
    sums->pair = NULL;
    return TCA_OK;
}

enum tca_status peer_sums_create(struct comm_group *control, int timeout_ms,
                                 struct peer_sums **sums_out)
{
    const bool is_pair = control->ranks == 2;
    const size_t bytes = small_bytes(control->ranks) + (is_pair ? pair_sum_bytes() : 0);
    struct peer_sums *sums;
    enum tca_status status;

    *sums_out = NULL;
    sums = calloc(1, sizeof(*sums));
    if (sums == NULL)
        return TCA_ERR_NO_MEMORY;
    status = peer_memory_create(control, bytes, timeout_ms, &sums->memory);
    if (status == TCA_OK && sums->memory != NULL && is_pair)
        status = pair_up(sums, control, timeout_ms);
    if (status != TCA_OK || sums->memory == NULL) {
        peer_sums_destroy(sums);
        return status;
    }
    one_shot_init(&sums->small, sums->memory, 0);
    *sums_out = sums;
    return TCA_OK;
}

bool peer_sums_takes_begun(const struct peer_sums *sums, const void *buf, size_t bytes)
{
    return sums != NULL && sums->pair != NULL && bytes <= PAIR_SUM_BYTES &&
           (uintptr_t)buf % PIECE_BYTES == 0;
}

bool peer_sums_takes(const struct peer_sums *sums, const void *buf, size_t bytes)
{
    return sums != NULL && (one_shot_takes(bytes) || peer_sums_takes_begun(sums, buf, bytes));
}

cudaError_t peer_sums_sum(struct peer_sums *sums, void *buf, size_t count, enum kernel_dtype dtype,
                          cudaStream_t stream)
{
    const int slot = PAIR_SUM_SLOTS - 1;
    cudaError_t code;

    if (one_shot_takes(count * reduce_element_bytes(dtype)))
        return one_shot_sum(&sums->small, buf, count, dtype, stream);
    code = pair_sum_begin(sums->pair, slot, buf, count, dtype, stream);
    return code == cudaSuccess ? pair_sum_await(sums->pair, slot, stream, NULL) : code;
}

cudaError_t peer_sums_begin(struct peer_sums *sums, int slot, void *buf, size_t count,
                            enum kernel_dtype dtype, cudaStream_t stream)
{
    return pair_sum_begin(sums->pair, slot, buf, count, dtype, stream);
}

cudaError_t peer_sums_await(struct peer_sums *sums, int slot, cudaStream_t stream,
                            const void **rest_out)
{
    return pair_sum_await(sums->pair, slot, stream, rest_out);
}

const char *peer_sums_text(const struct peer_sums *sums)
{
    if (sums == NULL)
        return "sums by NCCL";
    return sums->pair != NULL ? "sums through the peer's memory"
                              : "small sums through the peers' memory";
}

bool peer_sums_has_failed(const struct peer_sums *sums)
{
    return sums != NULL && peer_memory_has_failed(sums->memory);
}

void peer_sums_abort(struct peer_sums *sums)
{
    if (sums != NULL)
        peer_memory_abort(sums->memory);
}

void peer_sums_destroy(struct peer_sums *sums)
{
    if (sums == NULL)
        return;
    pair_sum_destroy(sums->pair);
    peer_memory_destroy(sums->memory);
    free(sums);
}
