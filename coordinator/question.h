/* One question, from its request to the end of its answer.
 *
 *   TOKENIZING -> WAITING -> RUNNING -> LEAVING
 *        any of the first two -> gone, without the group knowing of it
 *        RUNNING -> WAITING, refused by the group
 *
 * LEAVING: the client has its end; the group has yet to say that the memory is free. Guarded by
 * the coordinator's lock. */
#ifndef COORDINATOR_QUESTION_H
#define COORDINATOR_QUESTION_H

#include "base/token_ids.h"
#include "coordinator/admission.h"
#include "coordinator/answer.h"
#include "coordinator/ask_request.h"
#include "coordinator/document.h"

#include <stdbool.h>
#include <stdint.h>

struct rpc_call;

enum question_state {
    QUESTION_TOKENIZING,
    QUESTION_WAITING, /* for its document, for memory, or for its turn */
    QUESTION_RUNNING,
    QUESTION_LEAVING,
};

struct question {
    char request_id[DOCUMENT_ID_BYTES];
    enum question_state state;
    struct rpc_call *call;     /* borrowed until its `closed`; NULL once the client has its end */
    struct document *document; /* borrowed; counted in document->questions; NULL: a prompt */
    uint64_t key;              /* in the worker group, 0: not there yet */
    uint64_t retry_at;         /* the group refused it: see admission_may_retry(); 0: it did not */

    struct sampling sampling;
    struct attention_wish wish;
    struct attention attention; /* what comes of it, once it is measured */
    int64_t max_tokens;
    int logprobs;
    bool ignores_eos;
    bool no_wait;            /* for its document's prefill */
    bool is_measured;        /* question_measure has been called */
    bool was_alone;          /* when it was opened, nothing else held memory that comes back */
    bool is_stopping;        /* the group has been told to end it */
    int stop_reason;         /* and the client will get this one, 0: the group's */
    struct token_ids tokens; /* owned */
    int64_t question_tokens;
    int64_t document_tokens;
    int64_t kv_tokens;   /* reserved while the group has it; less after an eviction */
    int64_t core_tokens; /* of them, for its core cache */

    struct answer answer;                                       /* owned */
    uint64_t sequence;                                          /* of the last event sent */
    int64_t asked_ms, started_ms, first_token_ms, last_sent_ms; /* monotonic; 0: not yet */
    struct question *next;
};

/* Returns owned, in state TOKENIZING; NULL: out of memory. */
struct question *question_make(const struct ask_request *request, int64_t now_ms);
void question_free(struct question *question); /* NULL is a no-op */

/* The tokens are known (taken), and how it attends: settle how many may be answered, and what
 * memory that takes. The longest sequence bounds document, question and answer together, the
 * questions' pool what it holds at once; the default of max_tokens keeps within both.
 * TCA_ERR_RANGE: what was asked for does not. */
enum tca_status question_measure(struct question *question, struct token_ids *tokens,
                                 int64_t document_tokens, const struct admission *admission,
                                 struct tca_error *error);

#endif
