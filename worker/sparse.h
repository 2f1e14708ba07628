/* The sparse half of a layer's attention (docs/tca.md): what a prefill chunk selects of the tokens
 * before it and attends to, and what a question selects of its document.
 *
 * Works on the operations of the backend, after the layer's own attention of the step has left each
 * query's log-sum-exp. On a rank that shares its KV head, K and V are this rank's rows, outputs and
 * log-sum-exps those of its keys alone, and every call is collective among its peers: they select
 * the same tokens, and each reads those that it holds. The workspace is allocated once. Owned by
 * the rank's thread. */
#ifndef WORKER_SPARSE_H
#define WORKER_SPARSE_H

#include "worker/core_cache.h"
#include "worker/device.h"
#include "worker/stripes.h"

#include <stddef.h>
#include <stdint.h>

struct sparse;

struct sparse_limits {
    int rows;          /* of one step */
    int chunk_rows;    /* of one prefill chunk */
    int64_t positions; /* of the longest sequence */
};

/* The queries of the item at hand, among the step's. */
struct sparse_queries {
    const uint16_t *q; /* [.., q_heads, head_dim] bf16 */
    float *lse;        /* [.., q_heads] f32: of everything attended to so far */
    int first_row, rows;
};

/* A question's own rows so far, its queries' included, as its queries see them: attention items of
 * consecutive queries that have only these segments, at most rows / STRIPES_TILE + 2. */
struct sparse_own {
    const struct attention_item *piece;
    int pieces;
};

/* Bytes of workspace that sparse_create will take. */
size_t sparse_workspace_bytes(const struct device *device, const struct attention_shape *shape,
                              const struct sparse_limits *limits, bool has_stripes);

/* stripes: borrowed; NULL: this rank shares no KV head. TCA_ERR_NO_MEMORY. */
enum tca_status sparse_create(const struct device *device, const struct attention_shape *shape,
                              const struct sparse_limits *limits, struct stripes *stripes,
                              struct sparse **sparse_out);
void sparse_destroy(struct sparse *sparse); /* NULL is a no-op */

/* Add what a chunk attends to of the rows before it to `out` ([.., q_heads, head_dim]), which holds
 * its attention over itself: observe, select within the budgets, gather, attend, merge. earlier:
 * K and V of the rows before, budgets->tokens of them on all stripes. */
enum tca_status sparse_chunk(struct sparse *sparse, const struct sparse_queries *queries,
                             uint16_t *out, const struct kv_layer *earlier,
                             const struct head_budgets *budgets, int layer);

/* Fill one layer of a core cache from what the question's queries observe. base: the document's K
 * and V. The kept mass of these queries goes to core->masses when `measures`; a head below tau is
 * resized once. */
enum tca_status sparse_select(struct sparse *sparse, const struct sparse_queries *queries,
                              struct core_cache *core, const struct kv_layer *base,
                              const struct sparse_own *own, bool measures, int layer);

/* Fill one layer of a core cache anew from the `count` queries that it has recorded, the last of
 * which is that of `own`'s last row. */
enum tca_status sparse_refresh(struct sparse *sparse, struct core_cache *core,
                               const struct kv_layer *base, const struct sparse_own *own, int count,
                               int layer);

#endif
