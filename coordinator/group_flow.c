#include "coordinator/group_flow.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/question_flow.h"
#include "coordinator/scheduler.h"

static struct document *document_of(const struct coordinator *coordinator, uint64_t key)
{
    for (size_t i = 0; i < coordinator->documents.count; i++)
        if (key != 0 && coordinator->documents.rows[i]->key == key)
            return coordinator->documents.rows[i];
    return NULL;
}

static struct question *question_of(const struct coordinator *coordinator, uint64_t key)
{
    struct question *question = coordinator->questions;

    while (question != NULL && (key == 0 || question->key != key))
        question = question->next;
    return question;
}

void group_document_progress(struct coordinator *coordinator,
                             const Tca__Control__V1__DocumentProgress *progress)
{
    struct document *document = document_of(coordinator, progress->key);

    if (document == NULL || document->state != DOCUMENT_PREFILLING)
        return;
    document_report(document, DOCUMENT_NEWS_PREFILLED, (int64_t)progress->tokens_done,
                    document->token_count, clock_monotonic_ms(),
                    coordinator_next_sequence(coordinator));
    document_flow_publish(coordinator, document);
    question_flow_document_progress(coordinator, document);
}

static void document_ready(struct coordinator *coordinator, struct document *document)
{
    if (document->state != DOCUMENT_PREFILLING)
        return; /* it is being closed */
    log_info("document %s: ready after %lld ms", document->id,
             (long long)(clock_monotonic_ms() - document->work_started_ms));
    document->last_used_ms = clock_unix_ms();
    if (document_move(document, DOCUMENT_READY, coordinator_next_sequence(coordinator)) != TCA_OK)
        log_error("document %s: cannot become ready", document->id);
    document_flow_save(coordinator, document);
    document_flow_publish(coordinator, document);
}

static void forget_kv(struct document *document)
{
    document->key = 0;
    document->kv_tokens = 0;
    document->is_closing = false;
}

/* The group has nothing of the document any more. */
static void document_freed(struct coordinator *coordinator, struct document *document)
{
    if (!document->is_closing)
        admission_close_document(&coordinator->admission, document->kv_tokens);
    admission_free_document(&coordinator->admission, document->kv_tokens);
    forget_kv(document);
}

static void document_failed(struct coordinator *coordinator, struct document *document,
                            const Tca__Control__V1__DocumentDone *done)
{
    const bool is_refused = done->code == RPC_RESOURCE_EXHAUSTED && document->work_done == 0 &&
                            document->state == DOCUMENT_PREFILLING && !document->is_closing &&
                            !document->was_alone && coordinator->phase == COORDINATOR_SERVING;
    struct tca_error reason;

    if (is_refused) {
        admission_refuse_document(&coordinator->admission, document->kv_tokens);
        forget_kv(document);
        document_flow_wait_again(coordinator, document);
        return;
    }
    document_freed(coordinator, document);
    if (document->state != DOCUMENT_PREFILLING)
        return;
    tca_fail(&reason, TCA_OK, "%.*s", (int)done->message.len, (const char *)done->message.data);
    document_flow_fail(coordinator, document,
                       done->code == RPC_OK ? RPC_INTERNAL : (enum rpc_code)done->code,
                       reason.text);
}

void group_document_done(struct coordinator *coordinator,
                         const Tca__Control__V1__DocumentDone *done)
{
    struct document *document = document_of(coordinator, done->key);

    if (document == NULL)
        return;
    switch (done->state) {
    case TCA__CONTROL__V1__DOCUMENT_DONE__STATE__READY:
        document_ready(coordinator, document);
        break;
    case TCA__CONTROL__V1__DOCUMENT_DONE__STATE__CLOSED:
        document_freed(coordinator, document);
        break;
    case TCA__CONTROL__V1__DOCUMENT_DONE__STATE__FAILED:
    case TCA__CONTROL__V1__DOCUMENT_DONE__STATE__STATE_UNSPECIFIED:
    case _TCA__CONTROL__V1__DOCUMENT_DONE__STATE_IS_INT_SIZE:
        document_failed(coordinator, document, done);
        break;
    }
    document_flow_go_on_deleting(coordinator, document);
    scheduler_run(coordinator);
}

void group_question_progress(struct coordinator *coordinator,
                             const Tca__Control__V1__QuestionProgress *progress)
{
    struct question *question = question_of(coordinator, progress->key);
    int64_t done, left, elapsed_ms;

    if (question == NULL || question->is_stopping || progress->tokens_done > INT32_MAX)
        return;
    done = (int64_t)progress->tokens_done;
    left = question->question_tokens - done;
    elapsed_ms = clock_monotonic_ms() - question->started_ms;
    question_flow_progress(question, done, question->question_tokens,
                           done > 0 && left > 0 ? elapsed_ms * left / done : 0);
}

void group_question_selection(struct coordinator *coordinator,
                              const Tca__Control__V1__QuestionSelection *selection)
{
    struct question *question = question_of(coordinator, selection->key);
    Tca__V1__AskEvent__Selection event = TCA__V1__ASK_EVENT__SELECTION__INIT;

    if (question == NULL || question->is_stopping || !question->attention.reports_selection)
        return;
    event.layer = selection->layer;
    event.kv_head = selection->kv_head;
    event.n_bins = selection->n_bins;
    event.bins = selection->bins;
    question_flow_selection(coordinator, question, &event);
}

void group_question_evicted(struct coordinator *coordinator,
                            const Tca__Control__V1__QuestionEvicted *evicted)
{
    struct question *question = question_of(coordinator, evicted->key);
    const int64_t kv_tokens =
        evicted->kv_tokens > INT64_MAX ? INT64_MAX : (int64_t)evicted->kv_tokens;

    if (question == NULL || kv_tokens >= question->kv_tokens)
        return;
    admission_shrink_question(&coordinator->admission, question->kv_tokens - kv_tokens);
    question->kv_tokens = kv_tokens;
    scheduler_run(coordinator);
}

static struct answer_token token_of(const Tca__Control__V1__SampledToken *sampled)
{
    struct answer_token token = {.chosen = {sampled->token_id, sampled->logprob}};

    for (size_t i = 0; i < sampled->n_top && i < ANSWER_CHANCES_MAX; i++)
        token.best[token.best_count++] =
            (struct token_chance){sampled->top[i]->token_id, sampled->top[i]->logprob};
    return token;
}

void group_question_tokens(struct coordinator *coordinator,
                           const Tca__Control__V1__QuestionTokens *tokens)
{
    struct question *question = question_of(coordinator, tokens->key);
    enum tca_status status = TCA_OK;

    if (question == NULL || question->call == NULL || question->is_stopping)
        return;
    if (question->first_token_ms == 0)
        question->first_token_ms = clock_monotonic_ms();
    for (size_t i = 0; i < tokens->n_tokens && status == TCA_OK; i++) {
        const struct answer_token token = token_of(tokens->tokens[i]);

        status = answer_push(&question->answer, &token);
    }
    if (status != TCA_OK) {
        question_flow_end(coordinator, question, rpc_code_from_status(status),
                          "no memory for the answer");
        return;
    }
    question_flow_flush(coordinator, question, false);
    if (question->answer.is_stopped)
        question_flow_stop(coordinator, question, TCA__V1__ASK_EVENT__FINISHED__REASON__STOP);
}

/* The reason for the client; 0: it failed. */
static int finish_reason(const struct question *question,
                         const Tca__Control__V1__QuestionDone *done)
{
    if (question->stop_reason != 0)
        return question->stop_reason;
    if (question->answer.is_stopped)
        return TCA__V1__ASK_EVENT__FINISHED__REASON__STOP;
    if (done->reason == TCA__CONTROL__V1__QUESTION_DONE__REASON__EOS)
        return TCA__V1__ASK_EVENT__FINISHED__REASON__EOS;
    if (done->reason == TCA__CONTROL__V1__QUESTION_DONE__REASON__LENGTH)
        return TCA__V1__ASK_EVENT__FINISHED__REASON__LENGTH;
    if (done->reason == TCA__CONTROL__V1__QUESTION_DONE__REASON__CANCELLED)
        return TCA__V1__ASK_EVENT__FINISHED__REASON__CANCELLED;
    return 0;
}

static void finish(struct coordinator *coordinator, struct question *question,
                   const Tca__Control__V1__QuestionDone *done)
{
    Tca__V1__Usage usage = TCA__V1__USAGE__INIT;
    const enum tca_status status = answer_finish(&question->answer);
    const int reason = finish_reason(question, done);
    struct tca_error text;

    usage.question_ms = done->question_ms;
    usage.decode_ms = done->decode_ms;
    usage.kept_share = done->kept_share;
    usage.kept_mass_mean = done->kept_mass_mean;
    usage.kept_mass_min = done->kept_mass_min;
    usage.core_cache_bytes = done->core_cache_bytes;
    usage.full_kv_bytes = done->full_kv_bytes;
    usage.exchanged_bytes = done->exchanged_bytes;
    if (reason != 0 && status == TCA_OK) {
        question_flow_finish(coordinator, question, (Tca__V1__AskEvent__Finished__Reason)reason,
                             &usage);
        return;
    }
    tca_fail(&text, TCA_OK, "%.*s", (int)done->message.len, (const char *)done->message.data);
    question_flow_end(coordinator, question,
                      done->code == RPC_OK ? RPC_INTERNAL : (enum rpc_code)done->code, text.text);
}

/* Was there no memory to begin, and might there be later? */
static bool is_refused(const struct coordinator *coordinator, const struct question *question,
                       const Tca__Control__V1__QuestionDone *done)
{
    return done->reason == TCA__CONTROL__V1__QUESTION_DONE__REASON__FAILED &&
           done->code == RPC_RESOURCE_EXHAUSTED && question->first_token_ms == 0 &&
           question->call != NULL && !question->is_stopping && !question->was_alone &&
           coordinator->phase == COORDINATOR_SERVING;
}

void group_question_done(struct coordinator *coordinator,
                         const Tca__Control__V1__QuestionDone *done)
{
    struct question *question = question_of(coordinator, done->key);

    if (question == NULL)
        return;
    if (is_refused(coordinator, question, done)) {
        question_flow_wait_again(coordinator, question);
    } else {
        question->is_stopping = true; /* the group needs no cancel any more */
        if (question->call != NULL)
            finish(coordinator, question, done);
        question_flow_remove(coordinator, question);
    }
    scheduler_run(coordinator);
}
