/* tca.v1.Generation: Ask, Cancel, Tokenize, Detokenize. Texts become tokens on a thread of their
 * own, never on the server's. */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/ask_request.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/question_flow.h"
#include "coordinator/reply.h"
#include "coordinator/scheduler.h"
#include "coordinator/services.h"
#include "proto/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    TEXT_BYTES_MAX = 1024 * 1024,
    DETOKENIZE_MAX = 1000 * 1000,
    QUEUED_TEXTS_MAX = 256,              /* Ask has its own limit, --max-waiting */
    QUEUED_BYTES_MAX = 64 * 1024 * 1024, /* as received; up to four times that in memory */
};

/* What request_tokenizer may have to do: bounded in memory, and in how long the next one waits. */

/* With the lock. */
static enum tca_status check_queue(const struct coordinator *coordinator, size_t bytes,
                                   struct tca_error *error)
{
    if (coordinator->queued_bytes + bytes > QUEUED_BYTES_MAX)
        return tca_fail(error, TCA_ERR_BUSY,
                        "%zu bytes wait for the tokenizer already, allowed: up to %d with the %zu "
                        "of this request",
                        coordinator->queued_bytes, QUEUED_BYTES_MAX, bytes);
    return TCA_OK;
}

/* Ask. */

struct ask_task {
    struct task task;
    struct coordinator *coordinator;
    struct question *question;    /* not removed while TOKENIZING or, after that, LEAVING */
    Tca__V1__AskRequest *message; /* owned */
    size_t bytes;                 /* as received */
    bool has_document;
};

static struct chat_text text_of(ProtobufCBinaryData text)
{
    return (struct chat_text){(const char *)text.data, text.len};
}

static enum tca_status raw_tokens(const struct ask_task *task, struct token_ids *tokens)
{
    const Tca__V1__AskRequest *message = task->message;
    const ProtobufCBinaryData text = task->has_document ? message->question : message->prompt;

    return tokenizer_encode(task->coordinator->tokenizer, (const char *)text.data, text.len,
                            message->parse_special != 0, tokens);
}

static enum tca_status chat_tokens(const struct ask_task *task, struct token_ids *tokens)
{
    const struct coordinator *coordinator = task->coordinator;
    const Tca__V1__AskRequest *message = task->message;
    struct chat_turn *history = calloc(message->n_history + 1, sizeof(*history));
    enum tca_status status = TCA_OK;

    if (history == NULL)
        return TCA_ERR_NO_MEMORY;
    for (size_t i = 0; i < message->n_history; i++)
        history[i] = (struct chat_turn){.is_assistant = i % 2 != 0,
                                        .text = text_of(message->history[i]->text)};
    if (!task->has_document) /* what a document's KV begins with, a bare prompt has itself */
        status = chat_format_prefix(coordinator->chat, coordinator->tokenizer,
                                    (struct chat_text){0}, tokens);
    if (status == TCA_OK)
        status = chat_format_question(
            coordinator->chat, coordinator->tokenizer, task->has_document, history,
            message->n_history, text_of(task->has_document ? message->question : message->prompt),
            tokens);
    free(history);
    return status;
}

/* The tokens, unless nobody wants them any more. */
static enum tca_status ask_tokens(const struct ask_task *task, struct token_ids *tokens)
{
    bool is_left;

    pthread_mutex_lock(&task->coordinator->lock);
    is_left = task->question->state == QUESTION_LEAVING;
    pthread_mutex_unlock(&task->coordinator->lock);
    if (is_left)
        return TCA_ERR_CANCELLED;
    return task->message->raw ? raw_tokens(task, tokens) : chat_tokens(task, tokens);
}

static void run_ask(struct task *base)
{
    struct ask_task *task = (struct ask_task *)base;
    struct coordinator *coordinator = task->coordinator;
    struct question *question = task->question;
    struct token_ids tokens = {0};
    const enum tca_status status = ask_tokens(task, &tokens);

    pthread_mutex_lock(&coordinator->lock);
    coordinator->queued_bytes -= task->bytes;
    if (question->state == QUESTION_LEAVING) {
        question_flow_remove(coordinator, question);
    } else if (status != TCA_OK) {
        question->state = QUESTION_WAITING;
        question_flow_end(coordinator, question, rpc_code_from_status(status),
                          tca_status_text(status));
    } else {
        question_flow_tokenized(coordinator, question, &tokens);
    }
    scheduler_run(coordinator);
    pthread_mutex_unlock(&coordinator->lock);
    token_ids_free(&tokens);
    message_free(task->message);
    free(task);
}

/* Also those that their clients have left with the tokenizer: it still has their requests. */
static int count_waiting(const struct coordinator *coordinator)
{
    int waiting = 0;

    for (const struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        waiting += question->state != QUESTION_RUNNING && question->key == 0;
    return waiting;
}

/* The document a question is over, in a state in which it can be asked. With the lock. */
static enum tca_status choose_document(struct coordinator *coordinator,
                                       const struct ask_request *request,
                                       struct document **document_out, struct tca_error *error)
{
    const char *id = request->document_id;
    struct document *document = document_table_find(&coordinator->documents, id);

    if (document == NULL || document->state == DOCUMENT_DELETING)
        return tca_fail(error, TCA_ERR_NOT_FOUND, "document_id: there is no document \"%s\"", id);
    if (document->state == DOCUMENT_UPLOADING)
        return tca_fail(error, TCA_ERR_PRECONDITION,
                        "document_id: the upload of \"%s\" is not complete", id);
    if (document->state == DOCUMENT_FAILED)
        return tca_fail(error, TCA_ERR_PRECONDITION, "document_id: \"%s\" has failed: %s", id,
                        document->failure_text);
    if (request->message->no_wait && document->state != DOCUMENT_READY)
        return tca_fail(error, TCA_ERR_PRECONDITION, "no_wait: \"%s\" is %s, allowed: READY", id,
                        document_state_name(document->state));
    *document_out = document;
    return TCA_OK;
}

/* Before a document is brought back for it. Again once its tokens are counted, which may be later.
 */
static enum tca_status check_attention(const struct coordinator *coordinator,
                                       const struct ask_request *request,
                                       const struct document *document, struct tca_error *error)
{
    const struct attention_defaults defaults = coordinator_question_defaults(coordinator);
    struct attention attention;

    if (document != NULL && document->token_count == 0)
        return TCA_OK;
    return attention_of_question(&request->attention, &defaults,
                                 document == NULL ? 0 : document->token_count, &attention, error);
}

static enum tca_status check_ask(struct coordinator *coordinator, const struct ask_request *request,
                                 size_t bytes, struct document **document_out,
                                 struct tca_error *error)
{
    const int waiting = count_waiting(coordinator);

    TCA_TRY(coordinator_check_open(coordinator, true, error));
    if (request->request_id[0] != '\0' &&
        question_flow_find(coordinator, request->request_id) != NULL)
        return tca_fail(error, TCA_ERR_EXISTS, "request_id: \"%s\" is being answered",
                        request->request_id);
    if (request->has_document)
        TCA_TRY(choose_document(coordinator, request, document_out, error));
    TCA_TRY(check_attention(coordinator, request, *document_out, error));
    if (waiting >= coordinator->options->max_waiting &&
        (waiting > 0 || coordinator->admission.running >= coordinator->admission.max_running))
        return tca_fail(error, TCA_ERR_BUSY, "%d questions wait already, allowed: up to %" PRId64,
                        waiting, coordinator->options->max_waiting);
    return check_queue(coordinator, bytes, error);
}

static void complete_request(struct coordinator *coordinator, struct ask_request *request)
{
    while (request->sampling.seed == 0)
        if (getrandom(&request->sampling.seed, sizeof(request->sampling.seed), 0) < 0)
            request->sampling.seed = (uint64_t)clock_monotonic_ns();
    while (request->request_id[0] == '\0' ||
           question_flow_find(coordinator, request->request_id) != NULL)
        snprintf(request->request_id, sizeof(request->request_id), "req-%" PRIu64 "-%" PRIu64,
                 store_epoch(coordinator->store), ++coordinator->made_ids);
}

/* With the lock. Takes the message, `bytes` as it was received, on success. */
static enum tca_status start_ask(struct coordinator *coordinator, struct rpc_call *call,
                                 struct ask_request *request, Tca__V1__AskRequest *message,
                                 size_t bytes, struct tca_error *error)
{
    struct document *document = NULL;
    struct question *question;
    struct ask_task *task;

    TCA_TRY(check_ask(coordinator, request, bytes, &document, error));
    complete_request(coordinator, request);
    task = calloc(1, sizeof(*task));
    question = question_make(request, clock_monotonic_ms());
    if (task == NULL || question == NULL) {
        free(task);
        question_free(question);
        return TCA_ERR_NO_MEMORY;
    }
    *task = (struct ask_task){.task = {.run = run_ask},
                              .coordinator = coordinator,
                              .question = question,
                              .message = message,
                              .bytes = bytes,
                              .has_document = request->has_document};
    question->call = call;
    question->answer.tokenizer = coordinator->tokenizer;
    rpc_call_set_user(call, question);
    question_flow_add(coordinator, question, document);
    if (document != NULL && document->state == DOCUMENT_STORED)
        document_flow_recall(coordinator, document);
    if (document != NULL)
        document->last_used_ms = clock_unix_ms();
    coordinator->queued_bytes += bytes;
    task_queue_post(coordinator->request_tokenizer, &task->task);
    return TCA_OK;
}

static void on_ask(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__AskRequest *message = NULL;
    struct ask_request request;
    struct tca_error error = {{0}};
    enum tca_status status =
        message_unpack(&tca__v1__ask_request__descriptor, data, bytes, (void **)&message, &error);

    if (status == TCA_OK)
        status = ask_request_read(message, &request, &error);
    if (status == TCA_OK) {
        pthread_mutex_lock(&coordinator->lock);
        status = start_ask(coordinator, call, &request, message, bytes, &error);
        pthread_mutex_unlock(&coordinator->lock);
    }
    if (status == TCA_OK)
        return;
    reply_error(call, status, &error);
    message_free(message);
}

static void on_ask_closed(struct rpc_call *call, void *context)
{
    struct coordinator *coordinator = context;
    struct question *question;

    pthread_mutex_lock(&coordinator->lock);
    question = rpc_call_user(call); /* NULL: it had its end */
    if (question != NULL) {
        log_debug("request %s: the client is gone", question->request_id);
        question_flow_client_lost(coordinator, question);
        scheduler_run(coordinator);
    }
    pthread_mutex_unlock(&coordinator->lock);
}

static void on_cancel(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__CancelRequest *request = NULL;
    struct tca_error error = {{0}};
    char id[DOCUMENT_ID_BYTES] = "";
    enum tca_status status = message_unpack(&tca__v1__cancel_request__descriptor, data, bytes,
                                            (void **)&request, &error);

    if (status == TCA_OK)
        status = document_id_check("request_id", request->request_id.data, request->request_id.len,
                                   &error);
    if (status == TCA_OK) {
        struct question *question;

        memcpy(id, request->request_id.data, request->request_id.len);
        pthread_mutex_lock(&coordinator->lock);
        question = question_flow_find(coordinator, id);
        if (question != NULL)
            question_flow_stop(coordinator, question,
                               TCA__V1__ASK_EVENT__FINISHED__REASON__CANCELLED);
        else
            status = tca_fail(&error, TCA_ERR_NOT_FOUND,
                              "request_id: no question \"%s\" is being answered", id);
        scheduler_run(coordinator);
        pthread_mutex_unlock(&coordinator->lock);
    }
    if (status == TCA_OK) {
        Tca__V1__CancelResponse response = TCA__V1__CANCEL_RESPONSE__INIT;

        rpc_call_reply(call, &response);
    } else {
        reply_error(call, status, &error);
    }
    message_free(request);
}

/* Tokenize and Detokenize. */

struct text_task {
    struct task task;
    struct coordinator *coordinator;
    struct rpc_call *call;              /* held */
    Tca__V1__TokenizeRequest *tokenize; /* owned, or NULL */
    Tca__V1__DetokenizeRequest *detokenize;
    size_t bytes; /* as received */
};

static void tokenize(const struct text_task *task)
{
    const Tca__V1__TokenizeRequest *request = task->tokenize;
    Tca__V1__TokenizeResponse response = TCA__V1__TOKENIZE_RESPONSE__INIT;
    struct token_ids tokens = {0};
    const enum tca_status status =
        tokenizer_encode(task->coordinator->tokenizer, (const char *)request->text.data,
                         request->text.len, request->parse_special != 0, &tokens);

    response.n_token_ids = tokens.count;
    response.token_ids = tokens.ids;
    if (status == TCA_OK)
        rpc_call_reply(task->call, &response);
    else
        reply_code(task->call, rpc_code_from_status(status), tca_status_text(status));
    token_ids_free(&tokens);
}

static void detokenize(const struct text_task *task)
{
    const Tca__V1__DetokenizeRequest *request = task->detokenize;
    const struct tokenizer *tokenizer = task->coordinator->tokenizer;
    Tca__V1__DetokenizeResponse response = TCA__V1__DETOKENIZE_RESPONSE__INIT;
    struct token_stream stream = {{0}, 0};
    struct bytes text = {0};
    enum tca_status status = TCA_OK;

    for (size_t i = 0; i < request->n_token_ids && status == TCA_OK; i++)
        status = token_stream_push(&stream, tokenizer, request->token_ids[i], &text);
    if (status == TCA_OK)
        status = token_stream_finish(&stream, &text);
    response.text = message_text_bytes(text.data, text.size);
    if (status == TCA_OK)
        rpc_call_reply(task->call, &response);
    else
        reply_code(task->call, rpc_code_from_status(status), tca_status_text(status));
    bytes_free(&text);
}

static void run_text(struct task *base)
{
    struct text_task *task = (struct text_task *)base;
    struct coordinator *coordinator = task->coordinator;

    if (!rpc_call_is_over(task->call) && task->tokenize != NULL)
        tokenize(task);
    else if (!rpc_call_is_over(task->call))
        detokenize(task);
    message_free(task->tokenize);
    message_free(task->detokenize);
    rpc_call_drop(task->call);
    pthread_mutex_lock(&coordinator->lock);
    coordinator->queued_texts--;
    coordinator->queued_bytes -= task->bytes;
    pthread_mutex_unlock(&coordinator->lock);
    free(task);
}

static enum tca_status take_turn(struct coordinator *coordinator, size_t bytes,
                                 struct tca_error *error)
{
    enum tca_status status = TCA_OK;

    pthread_mutex_lock(&coordinator->lock);
    if (coordinator->queued_texts >= QUEUED_TEXTS_MAX)
        status = tca_fail(error, TCA_ERR_BUSY,
                          "%d requests wait for the tokenizer already, allowed: up to %d",
                          coordinator->queued_texts, QUEUED_TEXTS_MAX);
    else
        status = check_queue(coordinator, bytes, error);
    if (status == TCA_OK) {
        coordinator->queued_texts++;
        coordinator->queued_bytes += bytes;
    }
    pthread_mutex_unlock(&coordinator->lock);
    return status;
}

/* Takes the message, `bytes` as it was received, on success. */
static enum tca_status post_text(struct coordinator *coordinator, struct rpc_call *call,
                                 Tca__V1__TokenizeRequest *tokenize,
                                 Tca__V1__DetokenizeRequest *detokenize, size_t bytes,
                                 struct tca_error *error)
{
    struct text_task *task = calloc(1, sizeof(*task));
    const enum tca_status status =
        task == NULL ? TCA_ERR_NO_MEMORY : take_turn(coordinator, bytes, error);

    if (status != TCA_OK) {
        free(task);
        return status;
    }
    *task = (struct text_task){.task = {.run = run_text},
                               .coordinator = coordinator,
                               .call = rpc_call_hold(call),
                               .tokenize = tokenize,
                               .detokenize = detokenize,
                               .bytes = bytes};
    task_queue_post(coordinator->request_tokenizer, &task->task);
    return TCA_OK;
}

static void on_tokenize(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__TokenizeRequest *request = NULL;
    struct tca_error error = {{0}};
    enum tca_status status = message_unpack(&tca__v1__tokenize_request__descriptor, data, bytes,
                                            (void **)&request, &error);

    if (status == TCA_OK)
        status = message_check_bytes("text", request->text.len, 0, TEXT_BYTES_MAX, &error);
    if (status == TCA_OK)
        status = post_text(coordinator, call, request, NULL, bytes, &error);
    if (status == TCA_OK)
        return;
    reply_error(call, status, &error);
    message_free(request);
}

static enum tca_status check_ids(const struct coordinator *coordinator,
                                 const Tca__V1__DetokenizeRequest *request, struct tca_error *error)
{
    if (request->n_token_ids > DETOKENIZE_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "token_ids: %zu ids, allowed: 0 to %d",
                        request->n_token_ids, DETOKENIZE_MAX);
    for (size_t i = 0; i < request->n_token_ids; i++)
        if (request->token_ids[i] < 0 || request->token_ids[i] >= coordinator->vocab)
            return tca_fail(error, TCA_ERR_INVALID,
                            "token_ids[%zu]: %" PRId32 ", allowed: 0 to %" PRId32, i,
                            request->token_ids[i], coordinator->vocab - 1);
    return TCA_OK;
}

static void on_detokenize(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__DetokenizeRequest *request = NULL;
    struct tca_error error = {{0}};
    enum tca_status status = message_unpack(&tca__v1__detokenize_request__descriptor, data, bytes,
                                            (void **)&request, &error);

    if (status == TCA_OK)
        status = check_ids(coordinator, request, &error);
    if (status == TCA_OK)
        status = post_text(coordinator, call, NULL, request, bytes, &error);
    if (status == TCA_OK)
        return;
    reply_error(call, status, &error);
    message_free(request);
}

size_t service_generation_methods(struct coordinator *coordinator, struct rpc_method *methods_out)
{
    const struct rpc_method methods[] = {
        {.path = "/tca.v1.Generation/Ask", .message = on_ask, .closed = on_ask_closed},
        {.path = "/tca.v1.Generation/Cancel", .message = on_cancel},
        {.path = "/tca.v1.Generation/Tokenize", .message = on_tokenize},
        {.path = "/tca.v1.Generation/Detokenize", .message = on_detokenize},
    };
    const size_t count = sizeof(methods) / sizeof(*methods);

    for (size_t i = 0; i < count; i++) {
        methods_out[i] = methods[i];
        methods_out[i].context = coordinator;
    }
    return count;
}
