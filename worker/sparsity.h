/* How a sequence chooses what it attends to: a rule and its budget. Plain data, in step plans as in
 * requests; all zeros is dense attention. Defaults are the coordinator's: here every value is
 * final. */
#ifndef WORKER_SPARSITY_H
#define WORKER_SPARSITY_H

#include "kernels/select.h"

#include <stdbool.h>
#include <stdint.h>

struct sparsity {
    struct select_method method;
    double keep;         /* mean share over layers and KV heads, in (0, 1] */
    double tau;          /* attention mass that every head is to keep; 0: budgets follow `keep` */
    int64_t core_tokens; /* with tau: most rows of a head's core cache; 0: half of the document */
    int64_t dense_below_tokens; /* of a document: chunks that begin before are dense */
};

/* Whether the piece of a document that begins at `position` selects among the tokens before it:
 * that is decided for whole chunks, and the first has nothing before it. */
static inline bool sparsity_applies(const struct sparsity *sparsity, int64_t position,
                                    int chunk_tokens)
{
    const int64_t chunk_start = position / chunk_tokens * chunk_tokens;

    return sparsity->method.rule != SELECT_DENSE && chunk_start > 0 &&
           chunk_start >= sparsity->dense_below_tokens;
}

#endif
