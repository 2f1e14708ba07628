/* The transformer pass, written once over the backend table: one step of a batch of sequences.
 *
 * Every row is a token. All rows go through the linear layers together; attention treats each
 * item's rows over its own keys. The residual stream is f32. Two all-reduces a layer complete the
 * partial sums of o_proj and down. Ranks that share a KV head hold stripes of the sequences and
 * exchange what they need of one another (stripes.h); ranges are of a rank's own rows, every other
 * count of rows is of the whole sequence. The workspace is allocated once; on GPUs a step allocates
 * no device memory. Owned by the rank's thread; every rank runs the same
 * steps in the same order. */
#ifndef WORKER_FORWARD_H
#define WORKER_FORWARD_H

#include "base/error.h"
#include "comm/group.h"
#include "model/model_config.h"
#include "model/shard_plan.h"
#include "worker/core_cache.h"
#include "worker/device.h"
#include "worker/kv_cache.h"
#include "worker/weights.h"

struct forward;

struct forward_limits {
    int rows;          /* tokens of one step */
    int items;         /* sequences of one step */
    int logit_rows;    /* rows of one forward_logits call */
    int chunk_rows;    /* of a prefill chunk */
    int64_t positions; /* of the longest sequence */
};

/* The parts a pass is made of, all borrowed. */
struct forward_parts {
    struct device device;
    struct comm_group *group;
    struct comm_group *peers; /* the ranks that share this one's KV head; NULL: it has no stripes */
    const struct model_config *config;
    const struct shard *shard;
    const struct weights *weights;
};

/* Consecutive tokens of one sequence. They see all of the base's rows, the own rows before them,
 * and one another causally; less of the rows before them where `chunk` or `core` say so. */
struct forward_item {
    int first_row; /* of the step */
    int rows;
    const struct kv_range *own;  /* the new rows' K and V go to own_rows.. */
    int64_t own_rows;            /* rows already there */
    const struct kv_range *base; /* the document, or NULL */
    int64_t base_rows;           /* their count is the position of own row 0 */
    /* A sparse prefill chunk: what to select of the own rows before. Borrowed; else NULL. */
    const struct head_budgets *chunk;
    /* What a question keeps of its base. Selected: read in the base's
     * stead. Borrowed; else NULL. */
    struct core_cache *core;
    bool wants_output; /* forward_logits() reads its rows, or they select */
    bool selects;      /* these rows fill the core, after reading the base */
    bool records;      /* the (only) row's query is kept for the next refresh */
    bool refreshes;    /* the core is filled anew before it is read */
};

/* What a probe sees of a layer once its step has attended; all borrowed. */
struct forward_view {
    int layer;
    const struct device *device;
    const struct attention_shape *shape;
    const struct kv_shape *kv; /* kv_range_layer() finds an item's rows of this layer */
    const uint16_t *q;         /* device [rows, q_heads, head_dim] bf16, of all items */
    const uint16_t *attended;  /* device, of the same shape: what they read, of this rank's rows */
    const struct forward_item *items;
    int item_count;
};

typedef enum tca_status (*forward_probe_fn)(void *context, const struct forward_view *view);

/* Bytes of workspace that forward_create will take, TCA's included where the backend has it. */
size_t forward_workspace_bytes(const struct forward_parts *parts,
                               const struct forward_limits *limits);

enum tca_status forward_create(const struct forward_parts *parts,
                               const struct forward_limits *limits, struct forward **forward_out,
                               struct tca_error *error);
void forward_destroy(struct forward *forward); /* NULL is a no-op */

/* Run the layers over `rows` tokens, ids [rows], cut into `items` that cover them without gaps.
 * Leaves the residual stream for forward_logits; where no item wants output and there is no probe,
 * it ends with the last layer's K and V. Within the limits; a failure ends the group. */
enum tca_status forward_run(struct forward *forward, const int32_t *ids, int rows,
                            const struct forward_item *items, int item_count);

/* Call `probe` for every layer of every step from now on, after the layer's attention; NULL: no
 * more. Its failure is the step's. */
void forward_set_probe(struct forward *forward, forward_probe_fn probe, void *context);

/* Final norm and lm_head of `count` rows of the last step: *logits_out is [count, shard vocab] f32
 * on the device, valid until the next call. */
enum tca_status forward_logits(struct forward *forward, const int32_t *rows, int count,
                               const float **logits_out);

#endif
