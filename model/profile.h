/* The calibrated sparsity of one model: how much attention mass each (layer, KV head) keeps at
 * which budget, measured once by tca-calibrate and stored as JSON beside the model.
 *
 * Curves stand at a few document lengths. Between them they are blended in the logarithm of the
 * length; outside, the nearest one serves (constant share). Read-only after open. */
#ifndef MODEL_PROFILE_H
#define MODEL_PROFILE_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROFILE_POINTS_MAX = 32,
    PROFILE_LENGTHS_MAX = 8,
    PROFILE_HEADS_MAX = 1 << 20, /* layers x KV heads */
    PROFILE_ID_BYTES = 17,       /* hex, with its NUL */
    PROFILE_FINGERPRINT_BYTES = 65,
};

/* What a curve's budgets are for, and the rule it was measured with. */
enum profile_table {
    PROFILE_PREFILL,  /* `block`: what a chunk keeps of the tokens before it */
    PROFILE_QUESTION, /* `pooled`: what a question keeps of its document */
    PROFILE_TABLES
};

/* The sparsest log-Gaussian of block sizes that reached the calibration's threshold. */
struct profile_tca {
    float mu, sigma;
};

struct profile {
    char id[PROFILE_ID_BYTES]; /* of the file's content */
    char fingerprint[PROFILE_FINGERPRINT_BYTES];
    int layers, kv_heads;
    int64_t window_tokens;      /* that every measured selection kept */
    int64_t chunk_tokens;       /* of a step that a selection served: up to so far it was judged */
    int64_t calibration_tokens; /* of text */
    int points;
    float share[PROFILE_POINTS_MAX]; /* rising, in (0, 1], the last is 1 */
    int lengths;
    int64_t length[PROFILE_LENGTHS_MAX]; /* rising */
    float *mass[PROFILE_TABLES];         /* owned [lengths, layers, kv_heads, points] */
    struct profile_tca *tca;             /* owned [layers, kv_heads]; NULL: not calibrated */
};

/* Read and check a file against the model it is to serve. TCA_ERR_NOT_FOUND, TCA_ERR_IO;
 * TCA_ERR_INVALID: damaged; TCA_ERR_PRECONDITION: made for another model. */
enum tca_status profile_open(const char *path, const char *fingerprint, int layers, int kv_heads,
                             struct profile **profile_out, struct tca_error *error);
void profile_close(struct profile *profile); /* NULL is a no-op */

/* Allocate the arrays of a profile whose sizes are set. */
enum tca_status profile_allocate(struct profile *profile, bool has_tca);
void profile_deinit(struct profile *profile);

/* The file's text. A profile that was written reads back equal to 1e-6. */
enum tca_status profile_write(const struct profile *profile, struct bytes *json_out);

/* Write the file as a whole: after TCA_OK it is on disk, after a failure the old one is still
 * there. TCA_ERR_IO names the file. */
enum tca_status profile_save(const struct profile *profile, const char *path,
                             struct tca_error *error);

/* Masses of one head at a length: out [points]. */
void profile_curve(const struct profile *profile, enum profile_table table, int layer, int kv_head,
                   int64_t tokens, float *out);

#endif
