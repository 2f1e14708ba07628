/* Few queries over many keys, so that cuDNN's tiles of 128 rows are full and fill the GPU: the query
 * heads of a KV head are rows of one matrix (row r is query r / group of head r % group), and its keys
 * are split. What cuDNN sees is `heads` KV heads of one query head each, head h being split h % splits
 * of KV head h / splits; their results are merged by their log-sum-exps. */
#ifndef KERNELS_CUDA_SDPA_PACK_H
#define KERNELS_CUDA_SDPA_PACK_H

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/sdpa.h"

#include <stdbool.h>

enum {
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
    int64_t split_keys; /* a multiple of cuDNN's tile; the last split may have fewer, or none */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Pure arithmetic. False: the queries are too few or too many. */
bool sdpa_pack_init(struct sdpa_pack *pack, const struct attention_shape *shape, int queries,
                    int64_t keys, int multiprocessors);
struct sdpa_form sdpa_pack_form(const struct sdpa_pack *pack);

/* packed_out: [queries * group, heads, head_dim] = q: [queries, q_heads, head_dim]; and the lists. */
void cuda_launch_sdpa_pack(cudaStream_t stream, uint16_t *packed_out,
                           const struct sdpa_lists_out *lists, const struct sdpa_pack *pack,
                           const uint16_t *q, int64_t head_stride);
/* out: [queries, q_heads, head_dim], lse: [queries, q_heads] or NULL, of what cuDNN left in packed:
 * [queries * group, heads, head_dim] and packed_lse: [queries * group, heads]. */
void cuda_launch_sdpa_unpack(cudaStream_t stream, uint16_t *out, float *lse,
                             const struct sdpa_pack *pack, const uint16_t *packed,
                             const float *packed_lse);

#ifdef __cplusplus
}
#endif

#endif
