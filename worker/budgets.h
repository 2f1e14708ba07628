/* From a profile to token budgets: distributes a mean share over the (layer, KV head) pairs, so
 * that the mass kept in all grows most. Pure. */
#ifndef WORKER_BUDGETS_H
#define WORKER_BUDGETS_H

#include "base/status.h"
#include "model/profile.h"

#include <stdint.h>

struct budget_request {
    enum profile_table table;
    double keep;    /* mean share, in (0, 1] */
    int64_t tokens; /* to choose from */
    int64_t window; /* always kept at the end */
};

/* budgets_out: [layers * kv_heads] tokens. Without a profile (NULL) every pair gets
 * select_budget(keep). With one, each starts at half the mean, or the least budget where that is
 * more, and what is left goes where the (concave hull of the) mass curve rises steepest; none gets
 * less than its start, and the mean is spent to a block. TCA_ERR_NO_MEMORY. */
enum tca_status budgets_make(const struct profile *profile, const struct budget_request *request,
                             int layers, int kv_heads, int64_t *budgets_out);

/* The least budget of one head whose curve reaches `tau` (tau in (0, 1]). */
int64_t budget_for_mass(const struct profile *profile, enum profile_table table, int layer,
                        int kv_head, double tau, int64_t tokens, int64_t window);

#endif
