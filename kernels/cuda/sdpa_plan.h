/* How few queries over many keys are packed, so that cuDNN's tiles of 128 rows are full and fill
 * the GPU: the query heads of a KV head are rows of one matrix (row r is query r / group of head r
 * % group), and its keys are split. What cuDNN sees is `heads` KV heads of one query head each,
 * head h being split h % splits of KV head h / splits; their results are merged by their
 * log-sum-exps. Pure arithmetic on the host. */
#ifndef KERNELS_CUDA_SDPA_PLAN_H
#define KERNELS_CUDA_SDPA_PLAN_H

#include "kernels/backend.h"

#include <stdbool.h>

enum {
    SDPA_KEYS_MOST = 1 << 20,
    SDPA_TILE_ROWS = 128,
    SDPA_TILE_KEYS = 128, /* it reads values up to the next multiple, and multiplies them by 0 */
    SDPA_PACK_KEYS_LEAST = 8192, /* fewer are not worth two more launches */
    SDPA_PACK_ROWS_LEAST = 64,
    SDPA_PACK_ROWS_MOST = 4096,
};

struct sdpa_pack {
    struct attention_shape shape; /* of the queries */
    int queries;
    int splits;
    int heads;     /* kv_heads * splits */
    int plan_rows; /* queries * group, rounded up to a power of two: few plans serve any number */
    int64_t keys;
    int64_t split_keys; /* a multiple of cuDNN's tile; the last splits may have fewer, or none */
};

#ifdef __cplusplus
extern "C" {
#endif

/* False: the queries are too few or too many, or the keys too many. */
bool sdpa_pack_init(struct sdpa_pack *pack, const struct attention_shape *shape, int queries,
                    int64_t keys, int multiprocessors);

#ifdef __cplusplus
}
#endif

#endif
