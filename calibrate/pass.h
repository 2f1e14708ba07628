/* The steps of a calibration, led by rank 0: every document prefilled densely, cut so that each
 * text sample is a step of its own, and the questions about it, a step each. */
#ifndef CALIBRATE_PASS_H
#define CALIBRATE_PASS_H

#include "calibrate/documents.h"
#include "calibrate/sample.h"
#include "worker/group_run.h"

struct pass {
    const struct documents *documents;
    const struct sample *samples; /* in the order of their steps */
    int sample_count;
    int chunk_tokens; /* at least SAMPLE_TEXT_ROWS */
};

/* Shows its progress. A failure was logged. */
enum tca_status pass_run(const struct pass *pass, const struct group_run *run);

#endif
