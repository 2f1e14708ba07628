/* What every rank does in one step: rank 0 composes a plan and broadcasts it, all ranks apply it.
 *
 * A sequence lives in a slot: a document, or a question whose base is a document (or none). In
 * order, a plan closes sequences, opens sequences, and runs items, each some new tokens of one
 * sequence. Token ids of all items follow one another in `tokens`.
 * On the wire: little-endian, a fixed header and the arrays (see step_plan.c); reading checks
 * everything that does not depend on a rank's own state. */
#ifndef WORKER_STEP_PLAN_H
#define WORKER_STEP_PLAN_H

#include "base/bytes.h"
#include "base/error.h"
#include "worker/sparsity.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    STEP_SLOT_NONE = -1,
    STEP_SLOTS_MAX = 65536,
    STEP_OPENS_MAX = 64, /* one bit each in a rank's answer */
    STEP_CLOSES_MAX = 64,
    STEP_TOP_MAX = 256, /* candidates of a row of logits */
};

/* What rank 0 wants of an item's logits. */
enum step_logits {
    STEP_LOGITS_NONE,
    STEP_LOGITS_TOP,  /* the last row's best candidates */
    STEP_LOGITS_FULL, /* the last row, whole vocabulary */
    STEP_LOGITS_ALL,  /* every row, whole vocabulary */
};

enum step_end {
    STEP_END_NONE,
    STEP_END_STOP,    /* the group's work is done: leave with success */
    STEP_END_FAILURE, /* the coordinator is lost or refused: leave with failure */
};

struct step_open {
    int32_t slot;
    int32_t base_slot; /* or STEP_SLOT_NONE */
    int64_t capacity;  /* tokens */
    /* Of a document, what its chunks attend to; of a question, what it keeps of its base. */
    struct sparsity sparsity;
    int64_t base_tokens;    /* of the base when the question's own tokens run */
    bool is_base_leaving;   /* after the selection: nothing is read in place */
    bool reports_selection; /* of a question: which parts of the base every head keeps */
};

struct step_item {
    int32_t slot;
    int32_t tokens;
    int64_t own_rows; /* the sequence's rows before; every rank checks it against its own */
    enum step_logits logits;
    bool selects; /* its rows are the queries that select what the question keeps of its base */
};

struct step_limits {
    int32_t items;
    int32_t tokens;
};

struct step_plan {
    struct step_limits limits;
    uint64_t number; /* 1, 2, ... */
    enum step_end end;
    int32_t top_count; /* candidates of every STEP_LOGITS_TOP row, 1 to STEP_TOP_MAX */
    int32_t closes;
    int32_t opens;
    int32_t items;
    int32_t tokens;
    int32_t close[STEP_CLOSES_MAX]; /* slots */
    struct step_open open[STEP_OPENS_MAX];
    struct step_item *item; /* owned [limits.items] */
    int32_t *token;         /* owned [limits.tokens] */
};

enum tca_status step_plan_init(struct step_plan *plan, const struct step_limits *limits);
void step_plan_deinit(struct step_plan *plan); /* all zeros is a no-op */

/* Back to an idle plan. */
void step_plan_clear(struct step_plan *plan, uint64_t number);

/* Append; TCA_ERR_BUSY: the plan is full, leave it for the next one. */
enum tca_status step_plan_add_close(struct step_plan *plan, int32_t slot);
enum tca_status step_plan_add_open(struct step_plan *plan, const struct step_open *open);
enum tca_status step_plan_add_item(struct step_plan *plan, const struct step_item *item,
                                   const int32_t *ids);

enum tca_status step_plan_write(const struct step_plan *plan, struct bytes *out);

/* Replace `plan`, an initialised one, by what `data` says. TCA_ERR_INVALID: damaged, or beyond the
 * limits; the plan is then idle. */
enum tca_status step_plan_read(struct step_plan *plan, const void *data, size_t size,
                               struct tca_error *error);

#endif
