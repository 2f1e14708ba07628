/* What rank 0 knows of the documents and questions in its care, each in one slot of the group's
 * sequences. Plain data and pure transitions; engine.c drives them. Owned by the engine's thread.
 *
 *   OPENING --every rank has memory--> RUNNING --close, cancel, end--> CLOSING --closed--> (gone)
 *      '---------some rank has none-------------------------------------^                        */
#ifndef WORKER_JOBS_H
#define WORKER_JOBS_H

#include "base/error.h"
#include "worker/batch.h"
#include "worker/sampler.h"
#include "worker/sparsity.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    QUESTION_END_TOKENS_MAX = 64,
    QUESTION_OBSERVERS_MAX = 512, /* its last tokens select what it keeps */
};

enum job_state { JOB_OPENING, JOB_RUNNING, JOB_CLOSING };

struct document_job {
    uint64_t key;
    enum job_state state;
    bool is_on_ranks; /* the ranks have its slot open */
    int32_t slot;
    int64_t tokens;   /* of the whole document */
    int64_t received; /* have arrived */
    int64_t done;     /* have been run */
    struct sparsity prefill;
    int32_t *ids; /* owned [tokens]; NULL once all are done */
    uint64_t last_step;
    bool is_close_wanted; /* report CLOSED when its memory is free */
};

struct question_params {
    uint64_t key;
    uint64_t document_key; /* 0: a bare prompt */
    int64_t tokens;
    int64_t max_tokens;
    struct sampler_params sampling;
    int end_tokens;
    int32_t end_token[QUESTION_END_TOKENS_MAX];
    struct sparsity sparsity;
    bool evicts; /* of a bare prompt: its full KV is freed before the answer */
    bool reports_selection;
};

enum question_end { QUESTION_EOS, QUESTION_LENGTH, QUESTION_CANCELLED, QUESTION_FAILED };

struct question_job {
    struct question_params params;
    enum job_state state;
    bool is_on_ranks;              /* the ranks have its slot open */
    struct document_job *document; /* borrowed, NULL for a bare prompt */
    int32_t slot;
    int64_t capacity; /* rows of its slot: its own tokens' and the answer's, without the head's */
    /* An evicting prompt runs as a question over its own head: all but its last tokens, in a slot
     * that leaves when what it keeps is copied. 0 tokens: there is none. */
    int64_t head_tokens;
    int32_t head_slot;
    bool is_head_on_ranks, is_head_leaving;
    int64_t observers; /* own tokens at the end that run in one piece and select; 0: dense */
    bool is_selected;
    double kept_share, kept_mass_mean, kept_mass_min;
    int64_t kept_bytes;     /* of the base, over all ranks */
    double exchanged_bytes; /* between ranks: its tokens' share of what its steps sent */
    int64_t received;       /* of its own tokens */
    int64_t answered;       /* tokens of the answer */
    int64_t done;           /* own and answer tokens that have been run */
    int32_t *ids;           /* owned [capacity]: own tokens, then the answer's */
    struct sampler_random random;
    uint64_t last_step;
    bool has_sampled; /* `sampled` came out of the step under way */
    struct sampled_token sampled;
    int64_t open_ms, pass_start_ms, pass_end_ms, last_token_ms; /* monotonic; 0: not yet */
};

/* TCA_ERR_NO_MEMORY. */
enum tca_status document_job_create(uint64_t key, int64_t tokens,
                                    struct document_job **document_out);
void document_job_destroy(struct document_job *document);

/* Take tokens that have arrived. TCA_ERR_RANGE: more than announced, or an id outside `vocab`. */
enum tca_status document_job_receive(struct document_job *document, const int32_t *ids,
                                     int64_t count, int vocab, struct tca_error *error);
struct batch_sequence document_job_sequence(const struct document_job *document, int chunk_tokens);
bool document_job_is_ready(const struct document_job *document);
void document_job_advance(struct document_job *document, int64_t tokens, uint64_t step);

struct question_limits {
    int64_t max_positions; /* of document, question and answer together */
    int chunk_tokens;      /* most that run in one piece */
};

/* TCA_ERR_RANGE: the question alone does not fit; TCA_ERR_INVALID: a bad parameter;
 * TCA_ERR_NO_MEMORY. Borrows `document`. */
enum tca_status question_job_create(const struct question_params *params,
                                    struct document_job *document,
                                    const struct question_limits *limits,
                                    struct question_job **question_out, struct tca_error *error);
void question_job_destroy(struct question_job *question);
enum tca_status question_job_receive(struct question_job *question, const int32_t *ids,
                                     int64_t count, int vocab, struct tca_error *error);
struct batch_sequence question_job_sequence(const struct question_job *question);
/* Tokens before its own rows: the document's or the head's. */
int64_t question_job_base_tokens(const struct question_job *question);
bool question_job_is_end_token(const struct question_job *question, int32_t id);
/* Append a token of the answer; true when the answer is as long as it may get. */
bool question_job_answer(struct question_job *question, int32_t id);

#endif
