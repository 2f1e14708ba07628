/* Decides which tokens run in the next step. Pure: sequences in, plan items out.
 *
 * Every decoding question runs in every step. Beside them one prefill budget is shared by
 * documents and questions, least recently served first (questions before documents among equals),
 * so that nobody starves. The budget is a chunk; less where attention is long or answers are being
 * written, so that a step stays short: cancelling, new questions and the next token of an answer
 * wait for its end. A document's pieces never cross a multiple of chunk_tokens. Where a piece
 * selects what it attends to it is never cut: what is selected must not depend on the load. Such a
 * piece is followed by steps without another while answers are being written. */
#ifndef WORKER_BATCH_H
#define WORKER_BATCH_H

#include "worker/step_plan.h"

#include <stdbool.h>
#include <stdint.h>

enum batch_kind {
    BATCH_DECODE,   /* one pending token of a running question */
    BATCH_QUESTION, /* a question's own tokens */
    BATCH_DOCUMENT,
};

struct batch_sequence {
    enum batch_kind kind;
    int32_t slot;
    int64_t own_rows;       /* rows its range holds */
    int64_t base_rows;      /* rows of the document before them */
    const int32_t *pending; /* the tokens that come next, as far as they have arrived */
    int64_t pending_tokens;
    int64_t missing_tokens;  /* prefill tokens that have not arrived yet */
    enum step_logits logits; /* wanted of the last token of its prefill, or of a decode token */
    bool selects;            /* with the last piece of its prefill */
    int64_t tail_tokens;     /* the last so many of its prefill run in one piece: they select */
    bool has_whole_chunks;   /* its pieces are chunks, whole: a sparse prefill selects for each */
    uint64_t last_step;      /* number of the step that served it last, 0: none yet */
    int served_tokens;       /* out: how many run in this step */
};

enum { BATCH_PIECE_LEAST = 64 /* tokens, unless chunk_tokens is less */ };

struct batch_limits {
    int chunk_tokens;  /* most prefill tokens of a step */
    int64_t key_reads; /* about how many (query, key) pairs its prefill may attend to; 0: any */
    int decode_share;  /* while answers are being written, the budget is divided by this, and one
                        * step of so many runs a whole chunk; 0: not */
    uint64_t step;     /* number of this one */
    uint64_t whole_chunk_step; /* of the last that ran a whole chunk; 0: none yet */
};

/* Fill the items of `plan` (cleared by the caller); sets served_tokens of every sequence.
 * order: scratch [count]. */
void batch_compose(struct batch_sequence *sequences, int count, const struct batch_limits *limits,
                   int *order, struct step_plan *plan);

#endif
