/* Where a calibration looks: which tokens of a document observe and which are judged. Pure.
 *
 * A sample is one step of the pass. Its first rows observe: they choose among the `earlier` tokens,
 * as the observers of a prefill chunk or the tokens of a question do. Rows behind them are judged:
 * how much of their attention falls on what was chosen. All see the step's own tokens densely.
 *
 *   text      [ earlier ............ | 64 observe | 128 of 1,024 are judged ]
 *   question  [ the whole document | the question observes | its answer is judged ] */
#ifndef CALIBRATE_SAMPLE_H
#define CALIBRATE_SAMPLE_H

#include "base/status.h"
#include "worker/sampler.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SAMPLE_OBSERVERS = 64,
    SAMPLE_SPAN = 1024,
    SAMPLE_TEXT_ROWS = SAMPLE_OBSERVERS + SAMPLE_SPAN,
    SAMPLE_QUESTION_ROWS_MAX = 512,
    SAMPLE_JUDGED = 128,
    SAMPLE_POSITIONS_MAX = 64,
    /* The shortest document whose second half holds a sample. */
    SAMPLE_DOCUMENT_LEAST = 2 * (SAMPLE_TEXT_ROWS + 64)
};

/* Plain data: rank 0 makes the samples and sends them to the others. */
struct sample {
    int32_t length; /* index of the document's length */
    int32_t is_question;
    int64_t earlier; /* tokens to choose from */
    int32_t rows;    /* of the step */
    int32_t observers;
    int32_t judged;
    int32_t judged_row[SAMPLE_JUDGED]; /* of the step, rising */
};

/* First rows of text samples in the second half of a document of `tokens`: spread evenly, at a
 * random place each, on whole blocks, apart from one another. Returns how many there are: `wanted`
 * (1 .. SAMPLE_POSITIONS_MAX), or as many as there is room for. starts_out: [wanted]. */
int sample_positions(int64_t tokens, int wanted, struct sampler_random *random,
                     int64_t *starts_out);

/* The sample that starts at row `earlier`; its judged rows are drawn without repetition. */
struct sample sample_of_text(int length, int64_t earlier, struct sampler_random *random);

/* The sample of a question of `question_tokens` and its answer over a document. At most
 * SAMPLE_QUESTION_ROWS_MAX tokens in all, and 1 .. SAMPLE_JUDGED of the answer. */
struct sample sample_of_question(int length, int64_t document_tokens, int question_tokens,
                                 int answer_tokens);

#endif
