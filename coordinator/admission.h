/* Admission: which document and question may take KV memory now. Pure arithmetic, in tokens
 * rounded up to 64 (a KV range has that granularity).
 *
 * The group's capacity has two pools: questions have a reserved share, so that documents cannot
 * starve them. A document that leaves keeps its tokens reserved as `closing` until the group says
 * that the memory is free. A question holds rows for its tokens and its answer, and a core cache:
 * copies of the rows that a sparse rule keeps. Where more workers than KV heads hold stripes of the
 * sequences, what counts is the stripe that gets most. */
#ifndef COORDINATOR_ADMISSION_H
#define COORDINATOR_ADMISSION_H

#include "base/error.h"
#include "coordinator/attention.h"
#include "coordinator/document.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ADMISSION_GRAIN_TOKENS = 64 };

enum admission_policy {
    ADMISSION_LRU,    /* the least recently used document that no question reads makes room */
    ADMISSION_REFUSE, /* nothing makes room */
};

struct admission {
    enum admission_policy policy;
    int64_t max_tokens;       /* of one sequence: document, question and answer */
    int64_t document_pool;    /* tokens */
    int64_t question_pool;    /* tokens */
    int64_t document_used;    /* of the pool, closing ones too */
    int64_t document_closing; /* of document_used: will be free soon */
    int64_t question_used;
    int max_running, running; /* questions */
    uint64_t frees;           /* how often memory has come back */
    int64_t window_tokens;    /* that every rule keeps */
    int kv_heads, ranks;      /* of the group */
};

enum admission_answer {
    ADMISSION_NOW,   /* take it */
    ADMISSION_EVICT, /* make the victims STORED; then ask again */
    ADMISSION_WAIT,  /* memory comes back by itself: closing documents, busy documents, questions */
    ADMISSION_FULL,  /* policy REFUSE, or all that could make room is pinned */
    ADMISSION_NEVER, /* more than the whole pool or the longest sequence */
};

int64_t admission_round(int64_t tokens);

/* Share the capacity of the whole group out; question_share in [0, 1). `admission` has policy,
 * max_tokens, max_running, window_tokens, kv_heads and ranks. */
void admission_init(struct admission *admission, int64_t capacity_tokens, double question_share);

/* What a sequence takes: its tokens rounded up, more where there are stripes. */
int64_t admission_sequence_tokens(const struct admission *admission, int64_t tokens);

/* May a document of `tokens` be prefilled? With EVICT, victims_out[count] (room for `documents`)
 * are the READY ones to store. With FULL and NEVER, error has the numbers. */
enum admission_answer admission_document(const struct admission *admission, int64_t tokens,
                                         struct document *const *table, size_t documents,
                                         struct document **victims_out, size_t *count_out,
                                         struct tca_error *error);
void admission_take_document(struct admission *admission, int64_t kv_tokens);
void admission_close_document(struct admission *admission, int64_t kv_tokens);
void admission_free_document(struct admission *admission, int64_t kv_tokens); /* was closing */
/* The group had no memory for it: what was taken was nowhere, and is not memory that comes back. */
void admission_refuse_document(struct admission *admission, int64_t kv_tokens);

/* The largest core cache of a question that chooses from so many tokens (of a document, or of a
 * prompt that evicts): what its share or the least budget keeps. With tau, whose budgets
 * follow the mass, twice the share's or a 4th of the pool, whichever is more. Never over half: a
 * head that keeps more is read in place, but for a prompt that evicts. */
int64_t admission_core_tokens(const struct admission *admission, const struct attention *attention,
                              int64_t tokens);
/* What a question needs at its peak. An evicting one holds its prompt's whole range, with room for
 * the answer, until the core cache and the answer's own range are there. */
int64_t admission_question_tokens(const struct admission *admission, bool evicts,
                                  int64_t question_tokens, int64_t answer_tokens,
                                  int64_t core_tokens);
/* The longest answer that fits the pool, 0 where none does; a little less than that for one that
 * evicts. */
int64_t admission_answer_tokens(const struct admission *admission, bool evicts,
                                int64_t question_tokens, int64_t core_tokens);

/* May a question run now that needs kv_tokens, of the pool's at most? */
bool admission_question(const struct admission *admission, int64_t kv_tokens);
void admission_take_question(struct admission *admission, int64_t kv_tokens);
/* It holds so many less from now on. */
void admission_shrink_question(struct admission *admission, int64_t kv_tokens);
void admission_give_back_question(struct admission *admission, int64_t kv_tokens);
void admission_refuse_question(struct admission *admission, int64_t kv_tokens); /* as a document */

/* The sums are those of an average rank; one that holds more may refuse what is taken here. It is
 * worth another try when `frees` has reached retry_at, or nothing holds memory that will come back:
 * what is refused then fits never. */
bool admission_is_idle(const struct admission *admission);
bool admission_may_retry(const struct admission *admission, uint64_t retry_at);

#endif
