/* Brings rows of logits from the ranks' vocabulary parts to rank 0: the best candidates of a row,
 * or the whole row. Collective: every rank makes the same calls. Host memory, allocated once. */
#ifndef WORKER_LOGITS_H
#define WORKER_LOGITS_H

#include "base/error.h"
#include "comm/group.h"
#include "model/model_config.h"
#include "worker/device.h"

#include <stdint.h>

struct logits;

/* One row as rank 0 sees it: the best candidates in falling order (ties to the lowest id) with the
 * row's log-sum-exp, or all of it. */
struct logits_row {
    int top; /* candidates; 0: the whole row is given */
    const float *top_value;
    const int32_t *top_id;
    float lse;         /* natural log, over the whole vocabulary; with candidates only */
    const float *full; /* [vocab], or NULL */
    int vocab;
};

/* rows: most of one call; top: most candidates of a row. Borrows device and group. */
enum tca_status logits_create(const struct device *device, struct comm_group *group,
                              const struct model_config *config, int rows, int top, int timeout_ms,
                              struct logits **logits_out, struct tca_error *error);
void logits_destroy(struct logits *logits); /* NULL is a no-op */

/* Gather `top` candidates of each of `rows` rows. part: device [rows, this rank's vocab]. Rank 0
 * reads them with logits_top_row. */
enum tca_status logits_gather_top(struct logits *logits, const float *part, int rows, int top);
/* Row of the last logits_gather_top, on rank 0; valid until the next gather. */
struct logits_row logits_top_row(struct logits *logits, int row);

/* Gather one whole row. part: device [this rank's vocab]. *row_out is set on rank 0 only and valid
 * until the next gather. */
enum tca_status logits_gather_full(struct logits *logits, const float *part,
                                   struct logits_row *row_out);

#endif
