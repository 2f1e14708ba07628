#include "coordinator/scheduler.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/question_flow.h"

#include <stdlib.h>

/* Documents. */

/* A short document does not wait for a long one's whole prefill, and few share the group. */
enum { PREFILLS_MAX = 2 };

static int count_prefills(const struct coordinator *coordinator)
{
    int prefills = 0;

    for (size_t i = 0; i < coordinator->documents.count; i++)
        prefills += coordinator->documents.rows[i]->state == DOCUMENT_PREFILLING;
    return prefills;
}

/* Does `one` come before `other`? */
static bool is_before(const struct document *one, const struct document *other)
{
    const bool is_wanted = one->questions > 0;

    return is_wanted != (other->questions > 0) ? is_wanted : one->queued < other->queued;
}

/* Documents whose questions have all gone before their turn came push nobody out. */
static void store_unwanted(struct coordinator *coordinator)
{
    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct document *document = coordinator->documents.rows[i];

        if (document->state == DOCUMENT_QUEUED && document->is_recalled && !document->is_pinned &&
            document->questions == 0 && !document->is_in_tokenizer_task)
            document_flow_store(coordinator, document);
    }
}

/* The QUEUED document whose turn it is, of those whose tokens are counted. */
static struct document *next_document(const struct coordinator *coordinator)
{
    struct document *next = NULL;

    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct document *document = coordinator->documents.rows[i];

        if (document->state == DOCUMENT_QUEUED && document->token_count > 0 && document->key == 0 &&
            (next == NULL || is_before(document, next)))
            next = document;
    }
    return next;
}

static void prefill(struct coordinator *coordinator, struct document *document,
                    const struct attention *attention)
{
    const int64_t kv_tokens =
        admission_sequence_tokens(&coordinator->admission, document->token_count);
    const int64_t now_ms = clock_monotonic_ms();

    document->key = ++coordinator->last_key;
    document->kv_tokens = kv_tokens;
    admission_take_document(&coordinator->admission, kv_tokens);
    if (document_move(document, DOCUMENT_PREFILLING, coordinator_next_sequence(coordinator)) !=
        TCA_OK)
        log_error("document %s: cannot be prefilled now", document->id);
    document_report(document, DOCUMENT_NEWS_PREFILLED, 0, document->token_count, now_ms,
                    document->sequence);
    worker_link_open_document(&coordinator->link, document->key, &document->tokens, attention);
    token_ids_free(&document->tokens);
    document->has_tokens = false;
    log_info("document %s: prefill of %lld tokens begins", document->id,
             (long long)document->token_count);
    document_flow_publish(coordinator, document);
}

/* How a document attends; false: it cannot, and has failed. Uploads are checked, but the profile may
 * have gone since. */
static bool find_attention(struct coordinator *coordinator, struct document *document,
                           struct attention *attention)
{
    const struct attention_defaults defaults = coordinator_prefill_defaults(coordinator);
    struct tca_error error;

    if (document_attention(&document->identity, &defaults, attention, &error) == TCA_OK)
        return true;
    document_flow_fail(coordinator, document, RPC_FAILED_PRECONDITION, error.text);
    return false;
}

/* Try to begin the next document's prefill. true: look again, the queue has changed. */
static bool start_document(struct coordinator *coordinator)
{
    struct document_table *table = &coordinator->documents;
    struct document *document = next_document(coordinator);
    struct document **victims;
    enum admission_answer answer;
    struct attention attention;
    struct tca_error reason = {{0}};
    bool is_changed = false;
    size_t count;

    if (document == NULL || count_prefills(coordinator) >= PREFILLS_MAX)
        return false;
    if (!find_attention(coordinator, document, &attention))
        return true;
    victims = malloc(table->count * sizeof(struct document *));
    if (victims == NULL)
        return false;
    answer = admission_document(&coordinator->admission, document->token_count, table->rows,
                                table->count, victims, &count, &reason);
    if (document->is_restored && document->questions == 0 && answer != ADMISSION_NOW &&
        answer != ADMISSION_NEVER)
        answer = ADMISSION_FULL; /* after a start, documents take what is free and no more */
    switch (answer) {
    case ADMISSION_NOW:
        if (document->has_tokens)
            prefill(coordinator, document, &attention);
        else
            document_flow_tokenize(coordinator, document);
        is_changed = document->state != DOCUMENT_QUEUED;
        break;
    case ADMISSION_EVICT:
        for (size_t i = 0; i < count; i++) {
            log_info("document %s: stored, to make room for %s", victims[i]->id, document->id);
            document_flow_store(coordinator, victims[i]);
        }
        break;
    case ADMISSION_WAIT:
        break;
    case ADMISSION_FULL:
        if (reason.text[0] == '\0')
            tca_fail(&reason, TCA_ERR_BUSY,
                     "no KV memory is free for the document now; a question brings it back");
        document_flow_give_up(coordinator, document, reason.text);
        is_changed = true;
        break;
    case ADMISSION_NEVER:
        document_flow_fail(coordinator, document, RPC_OUT_OF_RANGE, reason.text);
        is_changed = true;
        break;
    }
    free(victims);
    return is_changed;
}

/* Questions. */

static void start_question(struct coordinator *coordinator, struct question *question)
{
    question->key = ++coordinator->last_key;
    question->state = QUESTION_RUNNING;
    question->started_ms = clock_monotonic_ms();
    if (question->document != NULL)
        question->document->last_used_ms = clock_unix_ms();
    admission_take_question(&coordinator->admission, question->kv_tokens);
    worker_link_open_question(coordinator, question);
    token_ids_free(&question->tokens);
}

static void start_questions(struct coordinator *coordinator)
{
    for (struct question *question = coordinator->questions; question != NULL;
         question = question->next) {
        const struct document *document = question->document;

        if (question->state != QUESTION_WAITING || !question->is_measured ||
            (document != NULL && document->state != DOCUMENT_READY))
            continue;
        /* Later ones do not overtake the first that must wait for memory. */
        if (!admission_question(&coordinator->admission, question->kv_tokens))
            return;
        start_question(coordinator, question);
    }
}

void scheduler_run(struct coordinator *coordinator)
{
    if (coordinator->phase != COORDINATOR_SERVING)
        return;
    store_unwanted(coordinator);
    while (start_document(coordinator))
        continue;
    start_questions(coordinator);
}
