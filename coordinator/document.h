/* A document as the coordinator knows it: identity, state, and its newest event.
 *
 *   UPLOADING -> QUEUED -> PREFILLING -> READY <-> STORED -> QUEUED ..
 *        any of them -> FAILED, and anything -> DELETING (final)
 *
 * QUEUED: the bytes are durable; it is being tokenised, or waits for KV memory.
 * STORED: durable, without KV at the moment. Pure data, guarded by the coordinator's lock. */
#ifndef COORDINATOR_DOCUMENT_H
#define COORDINATOR_DOCUMENT_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/token_ids.h"
#include "coordinator/attention.h"
#include "coordinator/content_check.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stdint.h>

struct watcher;

enum { DOCUMENT_ID_BYTES = 129, DOCUMENT_RULE_BYTES = 17 }; /* with their NUL */

enum document_state {
    DOCUMENT_UPLOADING,
    DOCUMENT_QUEUED,
    DOCUMENT_PREFILLING,
    DOCUMENT_READY,
    DOCUMENT_STORED,
    DOCUMENT_FAILED,
    DOCUMENT_DELETING,
};

enum { DOCUMENT_STATES = DOCUMENT_DELETING + 1 };

/* What decides, with the bytes themselves, whether two uploads are of the same document. */
struct document_identity {
    enum content_encoding encoding;
    bool is_raw;
    struct bytes system;            /* text of the system turn, owned */
    char rule[DOCUMENT_RULE_BYTES]; /* of the prefill, as the upload named it; "": it did not */
    double keep;                    /* the same; 0: it did not */
};

/* What the newest event says beside the document itself. */
enum document_news {
    DOCUMENT_NEWS_STATE,     /* nothing more */
    DOCUMENT_NEWS_COMMITTED, /* byte_count grew */
    DOCUMENT_NEWS_TOKENIZED, /* progress of tokenising: work_done of work_total bytes */
    DOCUMENT_NEWS_PREFILLED, /* progress of the prefill: work_done of work_total tokens */
};

struct document {
    char id[DOCUMENT_ID_BYTES];
    struct bytes display_name; /* owned */
    struct document_identity identity;
    bool is_pinned;

    enum document_state state;
    enum rpc_code failure; /* with FAILED; with DELETING, why its files stay */
    char failure_text[TCA_ERROR_TEXT_BYTES];

    int64_t byte_count;                     /* acknowledged: on disk */
    int64_t expected_bytes;                 /* as its upload announced, 0: not */
    char expected_sha256[SHA256_HEX_BYTES]; /* the same, "": not */
    char sha256[SHA256_HEX_BYTES];          /* "" until all bytes are there */
    int64_t token_count;                    /* with the chat prefix; 0: not tokenised yet */
    int64_t create_time_ms, last_used_ms;   /* since 1970 */

    uint64_t sequence; /* of the newest event; grows over restarts */
    enum document_news news;
    int64_t work_total, work_done;
    int64_t work_started_ms; /* monotonic */

    /* Of this run of the program. */
    struct content_check check; /* of an unfinished upload's bytes so far */
    struct sha256 *sha;         /* the same; owned */
    struct token_ids tokens;    /* owned; only from tokenising until the group has them */
    uint64_t queued;            /* its turn among the QUEUED */
    int64_t waits_since_ms;     /* monotonic; QUEUED, first, and without memory; 0: not yet */
    uint64_t waits_since_key;   /* then: those with larger keys have passed it */
    uint64_t key;               /* its KV in the worker group, 0: none */
    int64_t kv_tokens;          /* reserved there */
    uint64_t retry_at;          /* the group refused it: see admission_may_retry(); 0: it did not */
    struct watcher *watchers;   /* calls that get its events; see document_flow.h */
    int questions;              /* waiting or running over it */
    int held_questions;         /* of them, waiting until others have had the memory */
    int64_t holds_since_ms;     /* monotonic; questions asked since then are held, 0: none */
    int disk_tasks;             /* that work on its files */
    bool is_being_uploaded;     /* a stream writes to it */
    bool is_in_tokenizer_task;
    bool has_tokens;
    bool is_restored; /* from before the start: takes free memory, makes no room */
    bool is_recalled; /* QUEUED for its questions alone */
    bool goes_first;  /* a document that questions wait for was stored for it */
    bool was_alone;   /* when its prefill began, nothing else held memory that comes back */
    bool is_closing;  /* the group has been told to free its KV */
    bool is_removed_from_disk;
};

/* Returns owned, in state UPLOADING; NULL: out of memory. `id` is checked before. */
struct document *document_make(const char *id);
void document_free(struct document *document); /* NULL is a no-op */

/* Change the state; every legal change makes a STATE event with `sequence`.
 * TCA_ERR_PRECONDITION, and no change: there is no such transition. */
enum tca_status document_move(struct document *document, enum document_state state,
                              uint64_t sequence);
/* Move to FAILED with the reason that watchers and clients get. */
enum tca_status document_fail(struct document *document, enum rpc_code code, const char *text,
                              uint64_t sequence);
/* The state stays, the event is new: `done` of `total` at `now_ms` (monotonic). */
void document_report(struct document *document, enum document_news news, int64_t done,
                     int64_t total, int64_t now_ms, uint64_t sequence);
/* Estimate from the share done in the time since work began; 0 while unknown. */
double document_work_rate(const struct document *document, int64_t now_ms); /* units a second */
int64_t document_work_left_ms(const struct document *document, int64_t now_ms);

const char *document_state_name(enum document_state state); /* "READY"; never NULL */

/* [A-Za-z0-9._-]{1,128}, not "." or "..", or TCA_ERR_INVALID. */
enum tca_status document_id_check(const char *field, const void *id, size_t bytes,
                                  struct tca_error *error);

/* How its prefill attends. As attention_of_prefill. */
enum tca_status document_attention(const struct document_identity *identity,
                                   const struct attention_defaults *defaults,
                                   struct attention *attention_out, struct tca_error *error);

/* The first field in which they differ ("raw"), NULL: none. */
const char *document_identity_difference(const struct document_identity *one,
                                         const struct document_identity *other);
void document_identity_free(struct document_identity *identity);

#endif
