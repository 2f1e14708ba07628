/* The residual stream of a step's rows, and the delta that every half of a layer adds to it.
 *
 * A delta is a partial sum until all ranks have added theirs. Rows depend on one another in
 * attention alone, so a step of many rows is cut in two parts: while the delta of one is summed
 * over the ranks, the other is computed. Twice a layer, for one part after the other:
 *
 *     residual_norm(part)    rows += delta, once it is summed; normed = their norm
 *     ..                     the caller computes the part's next delta from normed
 *     residual_sum(part)     begins to sum it
 *
 * A step of few rows, or of a rank alone, has one part. All buffers are borrowed. */
#ifndef WORKER_RESIDUAL_H
#define WORKER_RESIDUAL_H

#include "comm/group.h"
#include "worker/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Consecutive rows of the step, and where their part of each buffer begins. */
struct residual_part {
    int first, count;
    float *rows;      /* device [count, hidden] */
    void *delta;      /* device [count, hidden] act */
    uint16_t *normed; /* device [count, hidden] bf16 */
};

/* The first seven fields are the user's to fill. */
struct residual {
    const struct device *device;
    struct comm_group *group;
    int hidden;
    float eps;
    float *rows; /* as above, of the whole step */
    void *delta;
    uint16_t *normed;
    int parts;
    struct residual_part part[COMM_SLOTS]; /* the number of a part is its sums' slot */
};

/* A step of `rows` rows begins. */
void residual_cut(struct residual *residual, int rows);

/* Enqueue: complete the embedded rows, of which each rank has some, and zeros for the others. */
enum tca_status residual_complete_rows(struct residual *residual, int rows);

/* Enqueue: rows += delta (unless there is none yet); normed = norm of rows
 * (unless weight is NULL). */
enum tca_status residual_norm(struct residual *residual, int part, bool has_delta,
                              const float *weight);

/* Enqueue: sum the part's delta over the ranks. It is read by the part's next residual_norm()
 * alone. */
enum tca_status residual_sum(struct residual *residual, int part);

/* Where row `row` of the part has its delta. */
void *residual_delta(const struct residual *residual, const struct residual_part *part, int row);

size_t residual_delta_bytes(const struct residual *residual, int rows);

#endif
