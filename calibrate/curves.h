/* The masses that a calibration adds up, and the profile they make. Pure.
 *
 * A curve stands for one source at one length, layer and KV head: its points are budgets (for `tca`
 * candidates of (mu, sigma)), its values sums of kept mass over the samples. Every rank adds to the
 * curves of its own heads; rank 0 adds the ranks up. */
#ifndef CALIBRATE_CURVES_H
#define CALIBRATE_CURVES_H

#include "model/profile.h"

#include <stddef.h>
#include <stdint.h>

/* Rule, and whose queries observed. */
enum curve_source {
    CURVE_BLOCK_TEXT,
    CURVE_POOLED_TEXT,
    CURVE_POOLED_QUESTION,
    CURVE_TCA_TEXT, /* the paper's: simpson, the last query alone */
    CURVE_SOURCES
};

enum { CURVE_SHARES = 16, CURVE_TCA_CANDIDATES = 24 };

/* Rising, the last is 1: dense near 0, where budgets are. */
extern const float curve_share[CURVE_SHARES];

/* The budget of a share: what is always kept at least, all tokens at most. Smaller than any that
 * the service uses (select_budget), because a curve shall also show the way there. */
int64_t curve_budget(int share, int64_t tokens, int64_t window);

/* Candidates from sparse to dense, 0 .. CURVE_TCA_CANDIDATES - 1; three sigmas for each of the kept
 * shares, which `keep_out` (or NULL) is set to. */
struct profile_tca curve_tca_candidate(int candidate, double *keep_out);

struct curves {
    int lengths, layers, kv_heads;                   /* of the model */
    double *sums;                                    /* owned */
    size_t count;                                    /* of sums */
    int samples[CURVE_SOURCES][PROFILE_LENGTHS_MAX]; /* added up in each; set by the owner */
};

enum tca_status curves_init(struct curves *curves, int lengths, int layers, int kv_heads);
void curves_deinit(struct curves *curves); /* all zeros is a no-op */

int curve_points(enum curve_source source);
/* [kv_heads - head, curve_points(source)] */
double *curves_at(const struct curves *curves, enum curve_source source, int length, int layer,
                  int head);

/* Fill the tables and `tca` of an allocated profile of the same sizes, points = CURVE_SHARES. The
 * question table is the mean of text and questions where there were questions. `tca` is the
 * sparsest candidate that keeps `threshold` at every length. Masses are rounded to 4 digits. */
void curves_fill(const struct curves *curves, double threshold, struct profile *profile);

#endif
