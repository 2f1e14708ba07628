/* One rank's part of a model, ready to run steps: weights, KV memory, workspace, and the
 * sequences that live in its slots. Every rank of a group has one; they stay in agreement because
 * they apply the same plans (lockstep.h). Owned by the rank's thread. */
#ifndef WORKER_MODEL_SHARD_H
#define WORKER_MODEL_SHARD_H

#include "base/error.h"
#include "comm/group.h"
#include "model/model_config.h"
#include "model/shard_plan.h"
#include "worker/forward.h"
#include "worker/logits.h"
#include "worker/selection_report.h"
#include "worker/step_plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model_shard;

struct model_shard_options {
    const char *model_folder;
    const struct kernel_backend *backend;
    int device;
    int threads;            /* at least 1 */
    int ranks_on_device;    /* that share the device's memory */
    size_t kv_memory_bytes; /* up to this rank's share of what is free; 0: half of that */
    int chunk_tokens;       /* prefill tokens of one step */
    int max_sequences;      /* decoding questions of one step */
    bool has_dummy_weights; /* config.json only; pseudo-random weights */
    int timeout_ms;         /* of every wait for a peer */
    int64_t max_positions;  /* of one sequence; 0: the model's, which only dummy weights may pass */
    int64_t window_tokens;  /* that every selection keeps at the end */
    int64_t refresh_every;  /* tokens of an answer until it selects again; 0: never */
    const char *profile;    /* file; NULL: the model folder's, if there is one */
    int stripe_unit;        /* tokens, a multiple of 64; 0: SHARD_STRIPE_UNIT */
};

struct model_shard_facts {
    struct shard shard;
    size_t memory_bytes; /* of the device */
    size_t weight_bytes;
    size_t workspace_bytes;
    size_t kv_bytes;            /* budget */
    int64_t kv_capacity_tokens; /* as shard_plan_kv_tokens counts them, with the whole budget */
    int64_t kv_bytes_per_token; /* of this rank, on average */
    char fingerprint[65];       /* hex; "dummy" for dummy weights */
    char profile_id[17];        /* hex; "": no profile */
    bool has_tca_profile;       /* it has (mu, sigma) for the rule tca */
    int64_t step_key_reads;     /* (query, key) pairs that a prefill step may attend to */
};

/* What a rank answers to a plan. */
struct step_answer {
    int32_t status;        /* enum tca_status; a failure ends the group */
    uint32_t reserved;     /* 0 */
    uint64_t failed_opens; /* bit i: the plan's open i found no memory here; close the slot */
    uint64_t sent_bytes;   /* through tensor collectives, in this step */
};

/* Rank 0 only: one wanted row of logits; token: index of its token in the plan. */
typedef void (*model_shard_row_fn)(void *context, int token, int item,
                                   const struct logits_row *row);

/* Load this rank's part; borrows group. Collective with more ranks than KV heads. On failure
 * nothing is kept, and the other ranks know nothing of it: the caller tells them. */
enum tca_status model_shard_create(const struct model_shard_options *options,
                                   struct comm_group *group, struct model_shard **shard_out,
                                   struct tca_error *error);
void model_shard_destroy(struct model_shard *shard); /* NULL is a no-op */

const struct model_config *model_shard_config(const struct model_shard *shard);
const struct model_shard_facts *model_shard_facts(const struct model_shard *shard);
struct step_limits model_shard_limits(const struct model_shard *shard);
/* KV memory in use now. */
size_t model_shard_used_bytes(const struct model_shard *shard);

/* What this rank computes on; borrowed. */
const struct device *model_shard_device(const struct model_shard *shard);
/* See forward_set_probe(). */
void model_shard_set_probe(struct model_shard *shard, forward_probe_fn probe, void *context);

/* What a sequence, or rows that every rank may have to hold, count against kv_capacity_tokens. */
int64_t model_shard_kv_tokens(const struct model_shard *shard, int64_t sequence_tokens,
                              int64_t kept_tokens);

/* What an item of the last plan selected, on rank 0. */
struct step_selected {
    int item;
    struct selection_report report; /* of all ranks */
    uint32_t
        *bins; /* [layers, kv_heads, CORE_CACHE_BINS] of the model, owned; NULL: not asked for */
};

/* Selections of the last model_shard_apply, rank 0 only; valid until the next. */
const struct step_selected *model_shard_selected(const struct model_shard *shard, int *count_out);

/* Apply a plan: collective. `row` (with rank 0; may be NULL when no logits are wanted) is called
 * for every wanted row in the order of tokens, candidates before whole rows. TCA_OK with
 * failed_opens set is agreed upon by the caller; any other status ends the group. */
enum tca_status model_shard_apply(struct model_shard *shard, const struct step_plan *plan,
                                  model_shard_row_fn row, void *context,
                                  struct step_answer *answer_out);

#endif
