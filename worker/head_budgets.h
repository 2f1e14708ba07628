/* How many tokens each (layer, KV head) of one rank may keep of a document, or of what stands
 * before a prefill chunk. Host memory, filled from a request and the model's profile; every rank
 * makes the same budgets for the whole model and takes its heads' part. */
#ifndef WORKER_HEAD_BUDGETS_H
#define WORKER_HEAD_BUDGETS_H

#include "base/status.h"
#include "model/profile.h"
#include "worker/sparsity.h"

#include <stdbool.h>
#include <stdint.h>

/* What budgets are made from, all borrowed. */
struct budget_source {
    const struct profile *profile; /* NULL: every head gets the mean */
    int layers;
    int all_kv_heads;            /* of the model */
    int kv_head_first, kv_heads; /* of this rank */
    int64_t window;
};

struct head_budgets {
    struct select_method method;
    int64_t window;
    int64_t tokens; /* to choose from */
    int layers, kv_heads;
    int64_t *rows; /* owned [layers, kv_heads], each at most `tokens` */
    float *shares; /* owned [layers, kv_heads, SELECT_TCA_SIZES]; NULL: the rule is not `tca` */
};

/* TCA_ERR_NO_MEMORY. */
enum tca_status head_budgets_init(struct head_budgets *budgets, const struct budget_source *source,
                                  const struct select_method *method);
void head_budgets_deinit(struct head_budgets *budgets); /* all zeros is a no-op */

/* Budgets for a choice from `tokens`: by tau where that is set, else by the mean share.
 * TCA_ERR_NO_MEMORY; TCA_ERR_PRECONDITION: tau or tca without a profile that has what they need. */
enum tca_status head_budgets_fill(struct head_budgets *budgets, const struct budget_source *source,
                                  const struct sparsity *sparsity, enum profile_table table,
                                  int64_t tokens);

/* Every head may keep everything. */
bool head_budgets_are_whole(const struct head_budgets *budgets);

#endif
