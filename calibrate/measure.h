/* How much attention mass the selections of one sample keep, in one layer, for this rank's heads.
 *
 * The observers score the earlier keys; for each budget the rule selects, the rows are gathered,
 * and the judged queries are scored over them. A judged query keeps 1 - (its mass on dropped
 * earlier tokens): e^(LSE of kept and own keys - LSE of all its causal keys). Everything goes
 * through the backend; a sample costs a layer about 15 passes over K.
 * Owned by the rank's thread. */
#ifndef CALIBRATE_MEASURE_H
#define CALIBRATE_MEASURE_H

#include "calibrate/curves.h"
#include "calibrate/sample.h"
#include "worker/device.h"

struct measure;

struct measure_limits {
    int64_t earlier; /* most tokens to choose from */
    int64_t window;  /* of every selection */
};

/* One layer's keys of a sample's step. */
struct measure_keys {
    const uint16_t *q;                /* device [sample's rows, q_heads, head_dim] bf16 */
    struct attention_segment earlier; /* of sample->earlier rows, not causal */
    struct attention_segment own;     /* of the step's rows, causal */
};

/* Borrows device. TCA_ERR_NO_MEMORY. */
enum tca_status measure_create(const struct device *device, const struct attention_shape *shape,
                               const struct measure_limits *limits, struct measure **measure_out,
                               struct tca_error *error);
void measure_destroy(struct measure *measure); /* NULL is a no-op */

/* The sources a sample adds to. */
bool measure_has_source(const struct sample *sample, enum curve_source source);

/* Add the mean kept masses of the judged queries and a group's query heads: sums[source], of the
 * sample's sources, is [kv_heads, curve_points(source)]. */
enum tca_status measure_sample(struct measure *measure, const struct sample *sample,
                               const struct measure_keys *keys, double *const sums[CURVE_SOURCES]);

/* Rows of gathered keys that the curves of one sample attend to, in multiples of `earlier`. */
double measure_passes(const struct sample *sample);

#endif
