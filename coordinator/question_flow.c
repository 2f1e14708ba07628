#include "coordinator/question_flow.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/reply.h"
#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

enum {
    CLIENT_PENDING_MAX =
        16,                 /* messages; more of an answer is put together until the client reads */
    TOKENS_PER_DELTA = 128, /* with 20 chances each they stay within what clients unpack */
};

void question_flow_add(struct coordinator *coordinator, struct question *question,
                       struct document *document)
{
    struct question **end = &coordinator->questions;

    while (*end != NULL)
        end = &(*end)->next;
    *end = question;
    question->document = document;
    if (document != NULL)
        document->questions++;
}

struct question *question_flow_find(const struct coordinator *coordinator, const char *request_id)
{
    for (struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        if (question->call != NULL && strcmp(question->request_id, request_id) == 0)
            return question;
    return NULL;
}

/* Events. */

static const char slow_client[] = "the client reads its answer too slowly";

static enum tca_status send_event(struct question *question, Tca__V1__AskEvent *event)
{
    enum tca_status status;

    event->sequence = question->sequence + 1;
    status = rpc_call_send_message(question->call, event);
    if (status != TCA_OK)
        return status;
    question->sequence++;
    question->last_sent_ms = clock_monotonic_ms();
    return TCA_OK;
}

static uint32_t queue_position(const struct coordinator *coordinator,
                               const struct question *question)
{
    uint32_t before = 0;

    for (const struct question *other = coordinator->questions; other != question;
         other = other->next)
        before += other->state == QUESTION_WAITING || other->state == QUESTION_TOKENIZING;
    return before;
}

static void send_accepted(struct coordinator *coordinator, struct question *question)
{
    Tca__V1__AskEvent event = TCA__V1__ASK_EVENT__INIT;
    Tca__V1__AskEvent__Accepted accepted = TCA__V1__ASK_EVENT__ACCEPTED__INIT;

    accepted.request_id = message_text(question->request_id);
    accepted.document_tokens = (uint64_t)question->document_tokens;
    accepted.question_tokens = (uint64_t)question->question_tokens;
    accepted.queue_position = queue_position(coordinator, question);
    accepted.seed = question->sampling.seed;
    event.body_case = TCA__V1__ASK_EVENT__BODY_ACCEPTED;
    event.accepted = &accepted;
    send_event(question, &event);
}

void question_flow_progress(struct question *question, int64_t done, int64_t total, int64_t eta_ms)
{
    Tca__V1__AskEvent event = TCA__V1__ASK_EVENT__INIT;
    Tca__V1__AskEvent__Progress progress = TCA__V1__ASK_EVENT__PROGRESS__INIT;

    if (question->call == NULL || rpc_call_pending(question->call) >= CLIENT_PENDING_MAX)
        return;
    progress.tokens_total = (uint64_t)total;
    progress.tokens_done = (uint64_t)done;
    progress.eta_ms = (uint64_t)eta_ms;
    event.body_case = TCA__V1__ASK_EVENT__BODY_PROGRESS;
    event.progress = &progress;
    send_event(question, &event);
}

void question_flow_document_progress(struct coordinator *coordinator, struct document *document)
{
    const int64_t eta_ms = document_work_left_ms(document, clock_monotonic_ms());

    for (struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        if (question->document == document && question->state == QUESTION_WAITING)
            question_flow_progress(question, document->work_done, document->token_count, eta_ms);
}

void question_flow_selection(struct coordinator *coordinator, struct question *question,
                             Tca__V1__AskEvent__Selection *selection)
{
    Tca__V1__AskEvent event = TCA__V1__ASK_EVENT__INIT;
    enum tca_status status;

    if (question->call == NULL)
        return;
    event.body_case = TCA__V1__ASK_EVENT__BODY_SELECTION;
    event.selection = selection;
    status = send_event(question, &event);
    if (status != TCA_OK && status != TCA_ERR_CANCELLED)
        question_flow_end(coordinator, question, RPC_RESOURCE_EXHAUSTED, slow_client);
}

/* One Delta: the unsent text, and as many tokens as it takes. */
struct delta_message {
    Tca__V1__AskEvent event;
    Tca__V1__AskEvent__Delta delta;
    int32_t ids[TOKENS_PER_DELTA];
    Tca__V1__TokenLogprob logprobs[TOKENS_PER_DELTA];
    Tca__V1__TokenLogprob *logprob_list[TOKENS_PER_DELTA];
    Tca__V1__TokenChance chances[TOKENS_PER_DELTA][ANSWER_CHANCES_MAX];
    Tca__V1__TokenChance *chance_list[TOKENS_PER_DELTA][ANSWER_CHANCES_MAX];
};

static void fill_logprob(struct delta_message *message, size_t at, const struct answer_token *token)
{
    Tca__V1__TokenLogprob *logprob = &message->logprobs[at];

    tca__v1__token_logprob__init(logprob);
    logprob->token_id = token->chosen.token_id;
    logprob->logprob = token->chosen.logprob;
    logprob->n_top = (size_t)token->best_count;
    logprob->top = message->chance_list[at];
    for (int i = 0; i < token->best_count; i++) {
        tca__v1__token_chance__init(&message->chances[at][i]);
        message->chances[at][i].token_id = token->best[i].token_id;
        message->chances[at][i].logprob = token->best[i].logprob;
        message->chance_list[at][i] = &message->chances[at][i];
    }
    message->logprob_list[at] = logprob;
}

static enum tca_status send_delta(struct question *question, struct delta_message *message)
{
    struct answer *answer = &question->answer;
    const size_t count =
        answer->unsent_count < TOKENS_PER_DELTA ? answer->unsent_count : TOKENS_PER_DELTA;

    tca__v1__ask_event__init(&message->event);
    tca__v1__ask_event__delta__init(&message->delta);
    message->event.body_case = TCA__V1__ASK_EVENT__BODY_DELTA;
    message->event.delta = &message->delta;
    message->delta.text.data = answer->unsent_text.data;
    message->delta.text.len = answer->unsent_text.size;
    message->delta.n_token_ids = count;
    message->delta.token_ids = message->ids;
    for (size_t i = 0; i < count; i++) {
        message->ids[i] = answer->unsent[i].chosen.token_id;
        if (question->logprobs > 0)
            fill_logprob(message, i, &answer->unsent[i]);
    }
    if (question->logprobs > 0) {
        message->delta.n_logprobs = count;
        message->delta.logprobs = message->logprob_list;
    }
    TCA_TRY(send_event(question, &message->event));
    answer_sent(answer, count);
    return TCA_OK;
}

void question_flow_flush(struct coordinator *coordinator, struct question *question, bool is_last)
{
    const struct answer *answer = &question->answer;
    struct delta_message *message;
    enum tca_status status = TCA_OK;

    if (question->call == NULL || (answer->unsent_count == 0 && answer->unsent_text.size == 0))
        return;
    if (!is_last && rpc_call_pending(question->call) >= CLIENT_PENDING_MAX)
        return;
    message = malloc(sizeof(*message));
    if (message == NULL)
        status = TCA_ERR_NO_MEMORY;
    while (status == TCA_OK && (answer->unsent_count > 0 || answer->unsent_text.size > 0))
        status = send_delta(question, message);
    free(message);
    if (is_last && status != TCA_OK && status != TCA_ERR_CANCELLED)
        question_flow_end(coordinator, question, RPC_RESOURCE_EXHAUSTED, slow_client);
}

/* Tokens. */

static void measure(struct coordinator *coordinator, struct question *question,
                    struct token_ids *tokens)
{
    const struct attention_defaults defaults = coordinator_question_defaults(coordinator);
    const int64_t document_tokens =
        question->document == NULL ? 0 : question->document->token_count;
    struct tca_error error = {{0}};
    enum tca_status status = attention_of_question(&question->wish, &defaults, document_tokens,
                                                   &question->attention, &error);

    if (status == TCA_OK)
        status =
            question_measure(question, tokens, document_tokens, &coordinator->admission, &error);
    if (status == TCA_OK)
        send_accepted(coordinator, question);
    else
        question_flow_end(coordinator, question, rpc_code_from_status(status), error.text);
}

void question_flow_tokenized(struct coordinator *coordinator, struct question *question,
                             struct token_ids *tokens)
{
    question->state = QUESTION_WAITING;
    if (question->document == NULL || question->document->token_count > 0) {
        measure(coordinator, question, tokens);
    } else {
        question->tokens = *tokens;
        *tokens = (struct token_ids){0};
    }
}

void question_flow_document_tokenized(struct coordinator *coordinator, struct document *document)
{
    struct question *next;

    for (struct question *question = coordinator->questions; question != NULL; question = next) {
        struct token_ids tokens = question->tokens;

        next = question->next;
        if (question->document != document || question->state != QUESTION_WAITING ||
            question->is_measured)
            continue;
        question->tokens = (struct token_ids){0};
        measure(coordinator, question, &tokens);
        token_ids_free(&tokens);
    }
}

void question_flow_wait_again(struct coordinator *coordinator, struct question *question)
{
    log_info("request %s: the workers have no memory for it now", question->request_id);
    admission_refuse_question(&coordinator->admission, question->kv_tokens);
    question->key = 0;
    question->started_ms = 0;
    question->state = QUESTION_WAITING;
    question->retry_at = coordinator->admission.frees + 1;
}

/* The end. */

void question_flow_remove(struct coordinator *coordinator, struct question *question)
{
    struct question **at = &coordinator->questions;
    struct document *document = question->document;

    while (*at != question)
        at = &(*at)->next;
    *at = question->next;
    if (question->key != 0)
        admission_give_back_question(&coordinator->admission, question->kv_tokens);
    question_free(question);
    if (document == NULL)
        return;
    document->questions--;
    document_flow_go_on_deleting(coordinator, document);
}

/* The client has its end; the group, or the tokenizer's thread, may still have the question. */
static void leave(struct coordinator *coordinator, struct question *question)
{
    const enum question_state state = question->state;

    if (question->call != NULL)
        rpc_call_set_user(question->call, NULL);
    question->call = NULL;
    question->state = QUESTION_LEAVING;
    if (state == QUESTION_WAITING)
        question_flow_remove(coordinator, question);
    else if (state == QUESTION_RUNNING && !question->is_stopping) {
        question->is_stopping = true;
        worker_link_cancel_question(&coordinator->link, question->key);
    }
}

void question_flow_end(struct coordinator *coordinator, struct question *question,
                       enum rpc_code code, const char *text)
{
    if (question->call != NULL)
        reply_code(question->call, code, text);
    leave(coordinator, question);
}

void question_flow_end_all(struct coordinator *coordinator, const struct document *document,
                           enum rpc_code code, const char *text)
{
    struct question *next;

    for (struct question *question = coordinator->questions; question != NULL; question = next) {
        next = question->next;
        if (document == NULL || question->document == document)
            question_flow_end(coordinator, question, code, text);
    }
}

void question_flow_finish(struct coordinator *coordinator, struct question *question,
                          Tca__V1__AskEvent__Finished__Reason reason, Tca__V1__Usage *usage)
{
    Tca__V1__AskEvent event = TCA__V1__ASK_EVENT__INIT;
    Tca__V1__AskEvent__Finished finished = TCA__V1__ASK_EVENT__FINISHED__INIT;
    const int64_t started_ms =
        question->started_ms == 0 ? clock_monotonic_ms() : question->started_ms;

    if (question->call == NULL)
        return;
    usage->document_tokens = (uint64_t)question->document_tokens;
    usage->question_tokens = (uint64_t)question->question_tokens;
    usage->completion_tokens = (uint64_t)question->answer.tokens;
    usage->queue_ms = (uint64_t)(started_ms - question->asked_ms);
    if (question->first_token_ms != 0)
        usage->first_token_ms = (uint64_t)(question->first_token_ms - question->asked_ms);
    finished.reason = reason;
    finished.usage = usage;
    event.body_case = TCA__V1__ASK_EVENT__BODY_FINISHED;
    event.finished = &finished;
    question_flow_flush(coordinator, question, true);
    if (question->call == NULL)
        return; /* it could not be sent */
    if (send_event(question, &event) == TCA_OK)
        reply_ok(question->call);
    else
        reply_code(question->call, RPC_RESOURCE_EXHAUSTED, slow_client);
    rpc_call_set_user(question->call, NULL);
    question->call = NULL;
}

void question_flow_stop(struct coordinator *coordinator, struct question *question,
                        Tca__V1__AskEvent__Finished__Reason reason)
{
    Tca__V1__Usage usage = TCA__V1__USAGE__INIT;

    if (question->state == QUESTION_RUNNING) {
        if (question->is_stopping)
            return;
        question->is_stopping = true;
        question->stop_reason = (int)reason;
        worker_link_cancel_question(&coordinator->link, question->key);
        return;
    }
    question_flow_finish(coordinator, question, reason, &usage);
    leave(coordinator, question);
}

void question_flow_client_lost(struct coordinator *coordinator, struct question *question)
{
    question->call = NULL;
    leave(coordinator, question);
}

void question_flow_tick(struct coordinator *coordinator, struct question *question, int64_t now_ms)
{
    Tca__V1__AskEvent event = TCA__V1__ASK_EVENT__INIT;
    Tca__V1__AskEvent__Heartbeat heartbeat = TCA__V1__ASK_EVENT__HEARTBEAT__INIT;

    if (question->call == NULL)
        return;
    if (now_ms >= rpc_call_deadline_ms(question->call)) {
        question_flow_end(coordinator, question, RPC_DEADLINE_EXCEEDED,
                          "the client's deadline has passed");
        return;
    }
    question_flow_flush(coordinator, question, false);
    if (now_ms - question->last_sent_ms < HEARTBEAT_MS)
        return;
    event.body_case = TCA__V1__ASK_EVENT__BODY_HEARTBEAT;
    event.heartbeat = &heartbeat;
    send_event(question, &event);
}
