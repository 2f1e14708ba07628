/* A document or a question in its slot on one rank: its rows, what its chunks select, what it keeps
 * of its base. Every rank makes the same ones from the same plans. Owned by the rank's thread. */
#ifndef WORKER_SEQUENCE_H
#define WORKER_SEQUENCE_H

#include "worker/core_cache.h"
#include "worker/forward.h"
#include "worker/head_budgets.h"
#include "worker/kv_cache.h"
#include "worker/step_plan.h"

#include <stdbool.h>
#include <stdint.h>

/* What all sequences of a rank share, borrowed. */
struct sequence_host {
    struct kv_cache *kv;
    struct budget_source source;
    const struct shard *shard;
    int chunk_tokens;
    int64_t refresh_every;
};

struct sequence {
    bool is_open;
    struct kv_range kv; /* this rank's rows; empty when it has none, or the open found no memory */
    int64_t capacity;   /* tokens; 0: the open found no memory */
    int64_t rows;
    int32_t base_slot;   /* or STEP_SLOT_NONE */
    int64_t base_tokens; /* before its own row 0 */
    bool reports_selection;
    struct sparsity sparsity;
    struct head_budgets chunk; /* of a document with a sparse rule: of the chunk at hand */
    struct core_cache *core;   /* owned; of a question with a sparse rule */
    int64_t answered;          /* rows since its selection */
};

/* Take what the plan's open asks for. TCA_ERR_BUSY, TCA_ERR_NO_MEMORY: no memory here; the slot
 * stays open and empty until rank 0 closes it. TCA_ERR_PRECONDITION: the rule needs a profile. */
enum tca_status sequence_open(struct sequence *sequence, const struct sequence_host *host,
                              const struct step_open *open);
void sequence_close(struct sequence *sequence, const struct sequence_host *host);

/* Lay out one item of a plan for the pass. base: the sequence in the base slot, or NULL. The item's
 * rows count as the sequence's from now on. TCA_ERR_INVALID: the item does not fit its state. */
enum tca_status sequence_place(struct sequence *sequence, const struct sequence_host *host,
                               const struct sequence *base, const struct step_item *item,
                               struct forward_item *placed_out);

/* The pass over the item is done. */
void sequence_advance(struct sequence *sequence, const struct step_item *item);

#endif
