/* The step loop of rank 0: takes documents and questions, runs them on the whole group, and
 * reports what happens to them as events.
 *
 * One thread owns it. Calls that name a key which is gone are ignored: an answer that says so is
 * already on its way. Failures of one document or question are its events; a failed status of
 * engine_step ends the group. */
#ifndef WORKER_ENGINE_H
#define WORKER_ENGINE_H

#include "worker/jobs.h"
#include "worker/lockstep.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;

enum engine_event_kind {
    ENGINE_DOCUMENT_PROGRESS, /* tokens_done; at every chunk */
    ENGINE_DOCUMENT_READY,
    ENGINE_DOCUMENT_CLOSED,    /* asked for; its KV is freed */
    ENGINE_DOCUMENT_FAILED,    /* status, message; its KV is freed at the next step */
    ENGINE_QUESTION_PROGRESS,  /* tokens_done of its own tokens */
    ENGINE_QUESTION_SELECTION, /* layer, kv_head, bins; after its pass, if asked for */
    ENGINE_QUESTION_EVICTED,   /* kv_tokens: what it holds from now on */
    ENGINE_QUESTION_TOKEN,     /* token; never an end token */
    ENGINE_QUESTION_DONE,      /* end, usage; status and message when it failed */
};

struct engine_usage {
    int64_t question_ms;      /* its own tokens' passes */
    int64_t first_token_ms;   /* since it was opened */
    int64_t decode_ms;        /* first to last token */
    int64_t full_kv_bytes;    /* of document, question and answer over all ranks */
    int64_t core_cache_bytes; /* of what decode reads: all of it, with dense attention */
    int64_t exchanged_bytes;  /* of comm_group.sent_bytes of all ranks, for this question */
    double kept_share;        /* of the document's KV, mean over layers and KV heads */
    double kept_mass_mean;    /* of the question's attention, over layers, heads and its tokens */
    double kept_mass_min;
};

enum { ENGINE_SELECTION_BINS = 256 };

struct engine_event {
    enum engine_event_kind kind;
    uint64_t key;
    int64_t tokens_done;
    enum tca_status status;
    const char *message;               /* borrowed for the call */
    const struct sampled_token *token; /* borrowed for the call */
    enum question_end end;
    struct engine_usage usage;
    int layer, kv_head;
    const uint32_t *bins; /* [ENGINE_SELECTION_BINS] kept tokens of equal parts, borrowed */
    int64_t kv_tokens;
};

/* Called on the engine's thread, inside its functions. */
typedef void (*engine_event_fn)(void *context, const struct engine_event *event);

struct engine_options {
    int chunk_tokens;
    int max_sequences;     /* most questions at once */
    int64_t max_positions; /* of a sequence; at most the model's */
};

/* Rank 0 only; borrows lockstep and shard. */
enum tca_status engine_create(const struct engine_options *options, struct lockstep *lockstep,
                              struct model_shard *shard, engine_event_fn event, void *context,
                              struct engine **engine_out);
void engine_destroy(struct engine *engine); /* NULL is a no-op */

/* prefill: what its chunks attend to; NULL: everything. */
void engine_open_document(struct engine *engine, uint64_t key, int64_t tokens,
                          const struct sparsity *prefill);
void engine_receive_document(struct engine *engine, uint64_t key, const int32_t *ids,
                             int64_t count);
void engine_close_document(struct engine *engine, uint64_t key);

void engine_open_question(struct engine *engine, const struct question_params *params);
void engine_receive_question(struct engine *engine, uint64_t key, const int32_t *ids,
                             int64_t count);
void engine_cancel_question(struct engine *engine, uint64_t key);
/* End a question that its opener could not even describe, as FAILED. */
void engine_refuse_question(struct engine *engine, uint64_t key, enum tca_status status,
                            const char *message);
void engine_refuse_document(struct engine *engine, uint64_t key, enum tca_status status,
                            const char *message);

/* Run one step on all ranks, an idle one when there is nothing to do. *was_busy_out: false when
 * another step now would be idle too, unless something arrives. */
enum tca_status engine_step(struct engine *engine, bool *was_busy_out);

#endif
