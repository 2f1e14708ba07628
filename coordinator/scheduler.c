#include "coordinator/scheduler.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/min.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/question_flow.h"

#include <stdlib.h>

/* Documents. */

/* A short document does not wait for a long one's whole prefill, and few share the group. */
enum { PREFILLS_MAX = 2 };

/* So long the first of the queue waits for documents that are being asked, before new questions
 * over them wait for it. */
enum { PATIENCE_MS = 10 * 1000 };

/* Documents that questions wait for come first, but after so many in a row it goes by the turn. */
enum { WANTED_IN_A_ROW_MAX = 4 };

static int count_prefills(const struct coordinator *coordinator)
{
    int prefills = 0;

    for (size_t i = 0; i < coordinator->documents.count; i++)
        prefills += coordinator->documents.rows[i]->state == DOCUMENT_PREFILLING;
    return prefills;
}

/* Does `one` come before `other`? */
static bool is_before(const struct coordinator *coordinator, const struct document *one,
                      const struct document *other)
{
    const bool is_wanted = one->questions > 0;

    if (one->goes_first != other->goes_first)
        return one->goes_first;
    if (is_wanted != (other->questions > 0) && coordinator->wanted_in_a_row < WANTED_IN_A_ROW_MAX)
        return is_wanted;
    if (one->is_restored != other->is_restored)
        return other->is_restored; /* nobody has asked for it since the start */
    return one->queued < other->queued;
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

/* How much a document may need to begin while `head` waits: what is free now, and beside the head.
 * What the head waits for has then still to make no more room than before. */
static int64_t room_to_pass(const struct coordinator *coordinator, const struct document *head)
{
    const struct admission *admission = &coordinator->admission;
    const int64_t free = admission->document_pool - admission->document_used;
    int64_t room =
        admission->document_pool - admission_sequence_tokens(admission, head->token_count);

    for (size_t i = 0; i < coordinator->documents.count; i++) {
        const struct document *row = coordinator->documents.rows[i];

        if (row->is_pinned || row->key > head->waits_since_key)
            room -= row->kv_tokens;
    }
    return min_i64(free, room);
}

/* The QUEUED document whose turn it is, of those whose tokens are counted; that may pass `head`,
 * unless it is NULL. */
static struct document *next_document(const struct coordinator *coordinator,
                                      const struct document *head)
{
    const int64_t room = head == NULL ? INT64_MAX : room_to_pass(coordinator, head);
    struct document *next = NULL;

    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct document *document = coordinator->documents.rows[i];

        if (document->state == DOCUMENT_QUEUED && document->token_count > 0 && document->key == 0 &&
            document != head && (next == NULL || is_before(coordinator, document, next)) &&
            admission_sequence_tokens(&coordinator->admission, document->token_count) <= room)
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

    coordinator->wanted_in_a_row = document->questions > 0 ? coordinator->wanted_in_a_row + 1 : 0;
    document->key = ++coordinator->last_key;
    document->kv_tokens = kv_tokens;
    document->was_alone = admission_is_idle(&coordinator->admission);
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

/* How a document attends; false: it cannot, and has failed. Uploads are checked, but the profile
 * may have gone since. */
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

/* The document whose KV is the oldest, of those that could make room and do not yet hold: an order
 * that new questions do not change. */
static struct document *next_to_hold(const struct coordinator *coordinator)
{
    struct document *oldest = NULL;

    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct document *document = coordinator->documents.rows[i];

        if (document->state == DOCUMENT_READY && !document->is_pinned &&
            document->holds_since_ms == 0 && (oldest == NULL || document->key < oldest->key))
            oldest = document;
    }
    return oldest;
}

static bool is_held(const struct question *question)
{
    const struct document *document = question->document;

    /* Whom it was brought back for, asks it before it leaves again. */
    return question->state == QUESTION_WAITING && document != NULL &&
           document->state == DOCUMENT_READY && document->holds_since_ms != 0 &&
           question->asked_ms > document->holds_since_ms &&
           question->asked_ms > document->work_started_ms;
}

static void release_all(struct coordinator *coordinator)
{
    for (size_t i = 0; i < coordinator->documents.count; i++) {
        coordinator->documents.rows[i]->holds_since_ms = 0;
        coordinator->documents.rows[i]->held_questions = 0;
    }
}

/* Where the first of the queue has waited for long, new questions over as many documents as it
 * needs wait too, until it has their memory; then they bring them back. */
static void hold_back(struct coordinator *coordinator, const struct document *head)
{
    const struct admission *admission = &coordinator->admission;
    int64_t missing;

    release_all(coordinator);
    if (head == NULL || head->waits_since_ms == 0 ||
        clock_monotonic_ms() - head->waits_since_ms < PATIENCE_MS)
        return;
    missing = admission_sequence_tokens(admission, head->token_count) - admission->document_pool +
              admission->document_used - admission->document_closing;
    while (missing > 0) {
        struct document *document = next_to_hold(coordinator);

        if (document == NULL) {
            release_all(coordinator); /* it waits for prefills: holding back makes no room */
            return;
        }
        document->holds_since_ms = head->waits_since_ms + PATIENCE_MS;
        missing -= document->kv_tokens;
    }
    for (struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        if (is_held(question))
            question->document->held_questions++;
}

/* They become STORED; with questions that are held, QUEUED behind `document`. */
static void make_room(struct coordinator *coordinator, struct document *document,
                      struct document *const *victims, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        log_info("document %s: stored, to make room for %s", victims[i]->id, document->id);
        document_flow_store(coordinator, victims[i]);
        if (victims[i]->questions == 0)
            continue;
        document_flow_recall(coordinator, victims[i]);
        document->goes_first = true;
    }
}

static void note_waiting(const struct coordinator *coordinator, struct document *document)
{
    if (document->waits_since_ms != 0)
        return;
    document->waits_since_ms = clock_monotonic_ms();
    document->waits_since_key = coordinator->last_key;
}

/* Try to begin a document's prefill. *answer_out: what admission says; true: the queue has
 * changed. */
static bool try_document(struct coordinator *coordinator, struct document *document,
                         enum admission_answer *answer_out)
{
    struct document_table *table = &coordinator->documents;
    struct document **victims;
    enum admission_answer answer;
    struct attention attention;
    struct tca_error reason = {{0}};
    bool is_changed = false;
    size_t count;

    *answer_out = ADMISSION_NOW;
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
    if (answer == ADMISSION_NOW &&
        !admission_may_retry(&coordinator->admission, document->retry_at))
        answer = ADMISSION_WAIT;
    switch (answer) {
    case ADMISSION_NOW:
        if (document->has_tokens)
            prefill(coordinator, document, &attention);
        else
            document_flow_tokenize(coordinator, document);
        is_changed = document->state != DOCUMENT_QUEUED;
        break;
    case ADMISSION_EVICT:
        make_room(coordinator, document, victims, count);
        break;
    case ADMISSION_WAIT:
        note_waiting(coordinator, document);
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
    *answer_out = answer;
    return is_changed;
}

/* Try to begin the next document's prefill, or that of one that may pass it. true: look again, the
 * queue has changed. */
static bool start_document(struct coordinator *coordinator)
{
    struct document *document = next_document(coordinator, NULL);
    const int wanted_in_a_row = coordinator->wanted_in_a_row;
    enum admission_answer answer;
    bool is_changed;

    hold_back(coordinator, document);
    if (document == NULL || count_prefills(coordinator) >= PREFILLS_MAX)
        return false;
    if (try_document(coordinator, document, &answer))
        return true;
    if (answer != ADMISSION_WAIT)
        return false;
    document = next_document(coordinator, document);
    is_changed = document != NULL && try_document(coordinator, document, &answer);
    coordinator->wanted_in_a_row = wanted_in_a_row; /* who passes takes nobody's turn */
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
    question->was_alone = admission_is_idle(&coordinator->admission);
    admission_take_question(&coordinator->admission, question->kv_tokens);
    worker_link_open_question(coordinator, question);
}

/* Those that are held and would not wait for another prefill of their document. */
static void end_impatient(struct coordinator *coordinator)
{
    struct question *next;

    for (struct question *question = coordinator->questions; question != NULL; question = next) {
        next = question->next;
        if (question->no_wait && is_held(question))
            question_flow_end(coordinator, question, RPC_FAILED_PRECONDITION,
                              "no_wait: the document makes room for one that has waited long");
    }
}

static void start_questions(struct coordinator *coordinator)
{
    for (struct question *question = coordinator->questions; question != NULL;
         question = question->next) {
        const struct document *document = question->document;

        if (question->state != QUESTION_WAITING || !question->is_measured || is_held(question) ||
            (document != NULL && document->state != DOCUMENT_READY))
            continue;
        /* Later ones do not overtake the first that must wait for memory. */
        if (!admission_question(&coordinator->admission, question->kv_tokens) ||
            !admission_may_retry(&coordinator->admission, question->retry_at))
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
    end_impatient(coordinator);
    start_questions(coordinator);
}
