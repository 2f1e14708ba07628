/* Chooses a token from one row of logits. Pure: randomness comes from the caller's generator;
 * equal logits, parameters and generator give the same token.
 *
 * The order of the steps is that of Hugging Face's generate: repetition penalty, temperature,
 * top-k, top-p, min-p; each judges the distribution that the one before left. The penalty applies
 * to the token ids this service knows of the sequence apart from the document: the question's (or
 * the bare prompt's) and the answer's. Reported log-probabilities are those of the model's own
 * distribution: log-softmax of the logits before penalty and temperature. */
#ifndef WORKER_SAMPLER_H
#define WORKER_SAMPLER_H

#include "base/error.h"
#include "worker/logits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SAMPLER_TOP_MAX = 20,         /* reported of a row */
    SAMPLER_CANDIDATES_MAX = 256, /* that a choice may be made from */
};

struct sampler_params {
    double temperature;        /* 0: greedy */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 1: off */
    uint64_t seed;
    int top_k;    /* 0: off */
    int logprobs; /* of how many of the best, 0 to SAMPLER_TOP_MAX */
};

/* A question's random numbers: xoshiro256** seeded by splitmix64, as their authors publish them. */
struct sampler_random {
    uint64_t state[4];
};

struct sampled_chance {
    int32_t id;
    float logprob;
};

struct sampled_token {
    struct sampled_chance chosen;
    int top;
    struct sampled_chance best[SAMPLER_TOP_MAX];
};

struct sampler;

/* Scratch for rows of `vocab` logits. */
enum tca_status sampler_create(int vocab, struct sampler **sampler_out);
void sampler_destroy(struct sampler *sampler); /* NULL is a no-op */

/* TCA_ERR_INVALID names the parameter, its value and its range. */
enum tca_status sampler_params_check(const struct sampler_params *params, struct tca_error *error);

void sampler_random_seed(struct sampler_random *random, uint64_t seed);
double sampler_random_next(struct sampler_random *random);                /* uniform in [0, 1) */
int64_t sampler_random_below(struct sampler_random *random, int64_t end); /* in 0 .. end - 1 */

/* How many of the row's best a choice needs, 1 to SAMPLER_CANDIDATES_MAX; 0: the whole row. */
int sampler_candidates(const struct sampler_params *params);

/* Choose from `row`, which has the candidates or is whole. seen: ids the penalty applies to, in any
 * order, repeats allowed. One random number is used up when temperature > 0, else none. */
struct sampled_token sampler_choose(struct sampler *sampler, const struct sampler_params *params,
                                    const struct logits_row *row, const int32_t *seen,
                                    size_t seen_count, struct sampler_random *random);

#endif
