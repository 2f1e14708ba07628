/* What the ranks that share a KV head do for one another in a layer
 * (docs/decisions/0009-stripes.md): keep the rows of their own units, share the queries out,
 * complete scores, merge partial outputs.
 *
 * Such a rank has one KV head; its stored rows are those of its own units, put together. Calls
 * marked collective are made by all peers in the same order, with the same sizes. The workspace is
 * allocated once. Owned by the rank's thread. */
#ifndef WORKER_STRIPES_H
#define WORKER_STRIPES_H

#include "comm/group.h"
#include "model/shard_plan.h"
#include "worker/device.h"
#include "worker/kv_cache.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stripes;

enum { STRIPES_TILE = 64 /* queries that attend to their chunk on one rank */ };

/* All borrowed. */
struct stripes_parts {
    struct device device;
    struct comm_group *peers; /* the shard's stripes, this rank's number among them its stripe */
    const struct shard *shard;
    const struct attention_shape *attention;
};

struct stripes_limits {
    int rows;          /* of one step */
    int64_t positions; /* of the longest sequence */
};

/* Consecutive new rows of one sequence. */
struct stripe_rows {
    int first_row; /* of the step; of what holds the queries */
    int rows;
    int64_t own_rows;     /* of the sequence before them, on all stripes */
    struct kv_layer held; /* this rank's rows of the sequence */
};

/* The rows of a step whose output this rank has merged. */
struct stripe_share {
    int first, rows;
    const uint16_t *attended; /* device [rows, q_heads, head_dim] bf16, until the next exchange */
};

/* Rows that partial outputs of `rows` need, so that every rank's share is as large. */
int stripes_room(const struct shard *shard, int rows);

size_t stripes_workspace_bytes(const struct stripes_parts *parts,
                               const struct stripes_limits *limits);
/* TCA_ERR_NO_MEMORY. */
enum tca_status stripes_create(const struct stripes_parts *parts,
                               const struct stripes_limits *limits, struct stripes **stripes_out);
void stripes_destroy(struct stripes *stripes); /* NULL is a no-op */

/* How many of a sequence's first `tokens` rows this rank holds. */
int64_t stripes_rows(const struct stripes *stripes, int64_t tokens);

/* Where all of a step's K and V go first, whoever keeps them. */
struct kv_append stripes_append(const struct stripes *stripes, int rows);

/* Keep those of the rows that are this rank's. */
enum tca_status stripes_keep(struct stripes *stripes, const struct stripe_rows *rows);

/* Cut queries into pieces with the own rows that they see on this rank; other segments are the
 * caller's to add. Return how many.
 *
 * By tile: the step's K and V are attended by the ranks in turns, *turn counting them over a step;
 * stored rows are left out where `has_stored` is false. At most rows / STRIPES_TILE + 1 pieces of
 * up to 2 segments.
 *
 * By unit: everything, these rows included, is attended where it is stored. At most
 * rows / STRIPES_TILE + 2 pieces of 1 segment. */
int stripes_cut_by_tile(const struct stripes *stripes, const struct stripe_rows *rows,
                        bool has_stored, int *turn, struct attention_item *pieces_out);
int stripes_cut_by_unit(const struct stripes *stripes, const struct stripe_rows *rows,
                        struct attention_item *pieces_out);

/* lse_out = log-sum-exp over all stripes' `lse`. Both [rows, q_heads] f32 on the device; may be the
 * same. rows: at most the limits'. Collective. */
enum tca_status stripes_complete_lse(struct stripes *stripes, float *lse_out, const float *lse,
                                     int rows);

/* Scores of the first `tokens` of a sequence, one for every `grain` (1, or a block's) of them:
 * where this rank's go, and all stripes' in the order of the sequence. out: [tokens / grain,
 * rounded up]. Collective: the second. */
float *stripes_scores(const struct stripes *stripes, int64_t tokens, int grain);
enum tca_status stripes_gather_scores(struct stripes *stripes, float *out, int64_t tokens,
                                      int grain);

/* This rank's rows of the kept tokens; see kernel_backend.pick. */
enum tca_status stripes_pick(struct stripes *stripes, int32_t *picked_out, int32_t *count_out,
                             const int32_t *kept, const int32_t *count);

/* Merge what all stripes attended to. out: [stripes_room, q_heads, head_dim] bf16, lse:
 * [stripes_room, q_heads] f32, the step's partial outputs in the first `rows`. Collective. */
enum tca_status stripes_exchange(struct stripes *stripes, const uint16_t *out, const float *lse,
                                 int rows, struct stripe_share *share_out);

#endif
