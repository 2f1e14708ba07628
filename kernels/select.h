/* TCA's selection rules: which document tokens a KV head keeps, as pure functions of its scores
 * and a budget. The reference for every backend; source: arXiv 2512.09238 where marked [S], ours
 * otherwise (docs/tca.md has the argument and the measurements).
 *
 * A budget counts all kept tokens, sinks and window included. Every rule keeps the first block
 * (sinks) and the last `window` tokens, never more than the budget, and breaks ties towards the
 * lowest position, so that every rank finds the same set. Indices are int32 in rising order.
 * Scores are masses in [0, 1] (see backend.h): NaN counts as 0. */
#ifndef KERNELS_SELECT_H
#define KERNELS_SELECT_H

#include "base/error.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum select_rule {
    SELECT_DENSE,  /* everything */
    SELECT_WINDOW, /* sinks and the last tokens: StreamingLLM, the control */
    SELECT_BLOCK,  /* whole blocks of largest mass */
    SELECT_POOLED, /* tokens of largest pooled score */
    SELECT_TCA,    /* the paper's: 1 to `block` tokens a block by its redundancy [S] */
    SELECT_RULE_COUNT
};

enum {
    SELECT_BLOCK_TOKENS = 64,
    SELECT_POOL_RADIUS = 16, /* pooled score: the largest of 33 tokens */
    SELECT_TCA_SIZES = 7,    /* a block keeps 1, 2, 4, ..., 64 tokens */
    SELECT_LEAST_FREE = 512, /* least budget beyond sinks and window */
    SELECT_TOKENS_MAX = 1 << 24,
};

/* How `tca` orders blocks from few to many kept tokens. */
enum select_redundancy {
    SELECT_REDUNDANCY_SIMPSON, /* most concentrated scores keep fewest [S] */
    SELECT_REDUNDANCY_MASS,    /* least mass keeps fewest */
};

/* A rule with its variants, as requests name it. */
struct select_method {
    enum select_rule rule;
    enum select_redundancy redundancy; /* `tca` only */
    bool observes_last;                /* only the last query observes [S]; `tca` only */
};

/* One KV head's view of a document (or of the tokens before a prefill chunk). */
struct select_input {
    int64_t tokens;            /* 1 .. SELECT_TOKENS_MAX */
    int64_t window;            /* last tokens that always stay */
    const float *token_scores; /* [tokens] s_i: pooled, tca */
    const float *block_masses; /* [blocks] m_j: block, tca by mass */
    enum select_redundancy redundancy;
    const float *tca_shares; /* [SELECT_TCA_SIZES] share of blocks that keep 1, 2, .. 64 tokens */
};

/* "dense", "window", "block", "pooled", and of the rule `tca`: "tca" is the paper's (simpson, the
 * last query observes), "tca-simpson" and "tca-mass" let all queries observe. False: no such
 * method. */
bool select_method_parse(const char *name, size_t bytes, struct select_method *method_out);

/* What the rule reads: token scores (pooled, tca), block masses (block, tca by mass). */
bool select_needs_token_scores(const struct select_method *method);
bool select_needs_block_masses(const struct select_method *method);

/* Blocks of a text: tokens / 64, rounded up. */
int64_t select_blocks(int64_t tokens);

/* The budget of a mean share: keep * tokens rounded down, at least sinks + window + 512, at most
 * tokens. */
int64_t select_budget(double keep, int64_t tokens, int64_t window);

/* Bytes of scratch that select_run needs for `tokens`. */
size_t select_scratch_bytes(int64_t tokens);

/* Choose at most `budget` tokens (all of them when the budget allows). kept_out: [min(budget,
 * tokens)], *count_out of it are set. scratch: select_scratch_bytes, aligned to 8.
 * TCA_ERR_INVALID: the budget is below sinks + window. `tca` spends what its shares say, cut to
 * the budget in the order of its blocks' masses. */
enum tca_status select_run(enum select_rule rule, const struct select_input *input, int64_t budget,
                           void *scratch, int32_t *kept_out, int64_t *count_out);

/* Pooled scores: out[i] = max of scores[i - 16 .. i + 16]. out may not alias scores. */
void select_pool(const float *scores, int64_t tokens, float *out);

/* Simpson index of each block, h_j = sum (s_i / sum s)^2 in [1 / 64, 1]; a block without any
 * score counts as 1. out: [blocks]. */
void select_simpson(const float *scores, int64_t tokens, float *out);

/* Shares of block sizes from a log-Gaussian over log2 k [S]: p_k ~ exp(-(log2 k - mu)^2 /
 * (2 sigma^2)), normalised. sigma > 0. */
void select_tca_shares(double mu, double sigma, float shares_out[SELECT_TCA_SIZES]);

/* The mu whose shares keep `keep` of the tokens at this sigma (by bisection); keep is clamped to
 * what the sizes can express. */
double select_tca_mu(double keep, double sigma);

#endif
