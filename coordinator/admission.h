/* Admission: which document and question may take KV memory now. Pure arithmetic, in tokens
 * rounded up to 64 (a document's KV has that granularity).
 *
 * The group's capacity has two pools: questions have a reserved share, so that documents cannot
 * starve them. A document that leaves keeps its tokens reserved as `closing` until the group says
 * that the memory is free. */
#ifndef COORDINATOR_ADMISSION_H
#define COORDINATOR_ADMISSION_H

#include "base/error.h"
#include "coordinator/document.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ADMISSION_GRAIN_TOKENS = 64 };

enum admission_policy {
    ADMISSION_LRU,    /* the least recently used document that nothing holds makes room */
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
};

enum admission_answer {
    ADMISSION_NOW,   /* take it */
    ADMISSION_EVICT, /* make the victims STORED; then ask again */
    ADMISSION_WAIT,  /* memory comes back by itself: closing documents, busy documents, questions */
    ADMISSION_FULL,  /* policy REFUSE, or all that could make room is pinned */
    ADMISSION_NEVER, /* more than the whole pool or the longest sequence */
};

int64_t admission_round(int64_t tokens);

/* capacity_tokens of the whole group; question_share in [0, 1). */
void admission_init(struct admission *admission, enum admission_policy policy,
                    int64_t capacity_tokens, double question_share, int64_t max_tokens,
                    int max_running);

/* May a document of `tokens` be prefilled? With EVICT, victims_out[count] (room for `documents`)
 * are the READY ones to store. With FULL and NEVER, error has the numbers. */
enum admission_answer admission_document(const struct admission *admission, int64_t tokens,
                                         struct document *const *table, size_t documents,
                                         struct document **victims_out, size_t *count_out,
                                         struct tca_error *error);
void admission_take_document(struct admission *admission, int64_t kv_tokens);
void admission_close_document(struct admission *admission, int64_t kv_tokens);
void admission_free_document(struct admission *admission, int64_t kv_tokens); /* was closing */

/* May a question run now that needs kv_tokens of its own (question and answer), of the pool's at
 * most? */
bool admission_question(const struct admission *admission, int64_t kv_tokens);
void admission_take_question(struct admission *admission, int64_t kv_tokens);
void admission_give_back_question(struct admission *admission, int64_t kv_tokens);

#endif
