#include "coordinator/worker_link.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/version.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/group_flow.h"
#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

enum {
    IDS_PER_MESSAGE = 65536,
    SILENCE_MS = 30 * 1000, /* rank 0 speaks every second, from a timer */
    AWAY_MS = 1000,         /* between two ticks: many times the timer's period */
    PENDING_MAX = 256,
    HELLO_BYTES_MAX = 4096, /* of strangers; the admitted group's messages are our own */
};

struct outgoing_message {
    struct outgoing_message *next;
    size_t bytes;
    uint8_t data[];
};

/* Sending. */

static void flush(struct worker_link *link)
{
    while (link->first != NULL && link->call != NULL &&
           rpc_call_pending(link->call) < PENDING_MAX) {
        struct outgoing_message *message = link->first;

        if (rpc_call_send(link->call, message->data, message->bytes) != TCA_OK)
            return; /* BUSY: the next tick; CANCELLED: `closed` comes */
        link->first = message->next;
        free(message);
    }
}

static void send(struct worker_link *link, const Tca__Control__V1__CoordinatorMessage *body)
{
    const size_t bytes = tca__control__v1__coordinator_message__get_packed_size(body);
    struct outgoing_message *message = malloc(sizeof(*message) + bytes);

    if (message == NULL) {
        /* The group would wait for ever for what cannot be said. */
        log_error("no memory for a message to the workers");
        if (link->call != NULL)
            rpc_call_finish(link->call, RPC_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
        return;
    }
    message->next = NULL;
    message->bytes = tca__control__v1__coordinator_message__pack(body, message->data);
    if (link->first == NULL)
        link->first = message;
    else
        link->last->next = message;
    link->last = message;
    flush(link);
}

/* The ids from `from` on, as many as one message takes, in little-endian. */
static size_t ids_of(const struct token_ids *tokens, size_t from, uint8_t *out)
{
    const size_t left = tokens->count - from;
    const size_t count = left < IDS_PER_MESSAGE ? left : IDS_PER_MESSAGE;

    for (size_t i = 0; i < count; i++) {
        const uint32_t id = (uint32_t)tokens->ids[from + i];

        for (int byte = 0; byte < 4; byte++)
            out[4 * i + (size_t)byte] = (uint8_t)(id >> 8 * byte);
    }
    return count;
}

static void send_ids(struct worker_link *link, uint64_t key, const struct token_ids *tokens,
                     bool is_document)
{
    uint8_t *ids = malloc((size_t)4 * IDS_PER_MESSAGE);

    if (ids == NULL) {
        log_error("no memory for a message to the workers");
        if (link->call != NULL)
            rpc_call_finish(link->call, RPC_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
        return;
    }
    for (size_t from = 0; from < tokens->count; from += IDS_PER_MESSAGE) {
        const ProtobufCBinaryData data = {.len = 4 * ids_of(tokens, from, ids), .data = ids};
        Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
        Tca__Control__V1__DocumentTokens document = TCA__CONTROL__V1__DOCUMENT_TOKENS__INIT;
        Tca__Control__V1__QuestionInput question = TCA__CONTROL__V1__QUESTION_INPUT__INIT;

        document.key = question.key = key;
        document.token_ids = question.token_ids = data;
        if (is_document) {
            message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_TOKENS;
            message.document_tokens = &document;
        } else {
            message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_INPUT;
            message.question_input = &question;
        }
        send(link, &message);
    }
    free(ids);
}

void worker_link_open_document(struct worker_link *link, uint64_t key,
                               const struct token_ids *tokens, const struct attention *attention)
{
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__DocumentOpen open = TCA__CONTROL__V1__DOCUMENT_OPEN__INIT;

    open.key = key;
    open.token_count = tokens->count;
    if (attention->rule != NULL) {
        open.rule = message_text(attention->rule);
        open.keep = attention->keep;
        open.dense_below_tokens = (uint64_t)attention->dense_below_tokens;
    }
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_OPEN;
    message.document_open = &open;
    send(link, &message);
    send_ids(link, key, tokens, true);
}

void worker_link_close_document(struct worker_link *link, uint64_t key)
{
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__DocumentClose close = TCA__CONTROL__V1__DOCUMENT_CLOSE__INIT;

    close.key = key;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_CLOSE;
    message.document_close = &close;
    send(link, &message);
}

/* The model's end tokens and the chat format's end of turn, each once. */
static size_t end_tokens(const struct coordinator *coordinator,
                         int32_t out[MODEL_END_TOKENS_MAX + 1])
{
    const int32_t turn = chat_format_end_token(coordinator->chat, coordinator->tokenizer);
    size_t count = 0;
    bool has_turn = turn < 0;

    for (int i = 0; i < coordinator->model.end_tokens; i++) {
        out[count++] = coordinator->model.end_token[i];
        has_turn |= coordinator->model.end_token[i] == turn;
    }
    if (!has_turn)
        out[count++] = turn;
    return count;
}

static void fill_attention(const struct question *question, Tca__Control__V1__QuestionOpen *open)
{
    const struct attention *attention = &question->attention;

    if (attention->rule == NULL)
        return;
    open->rule = message_text(attention->rule);
    open->keep = attention->keep;
    open->tau = attention->tau;
    open->evict = attention->evicts;
    open->report_selection = attention->reports_selection;
    if (attention->tau > 0.0)
        open->core_tokens = (uint64_t)question->core_tokens;
}

void worker_link_open_question(struct coordinator *coordinator, const struct question *question)
{
    struct worker_link *link = &coordinator->link;
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__QuestionOpen open = TCA__CONTROL__V1__QUESTION_OPEN__INIT;
    int32_t ends[MODEL_END_TOKENS_MAX + 1];

    open.key = question->key;
    open.document_key = question->document == NULL ? 0 : question->document->key;
    open.token_count = question->tokens.count;
    open.max_tokens = (uint32_t)question->max_tokens;
    /* Made-up weights choose end tokens as any other. */
    if (!question->ignores_eos && coordinator->options->weights != OPTIONS_WEIGHTS_DUMMY) {
        open.n_end_token = end_tokens(coordinator, ends);
        open.end_token = ends;
    }
    open.temperature = question->sampling.temperature;
    open.top_k = question->sampling.top_k;
    open.top_p = question->sampling.top_p;
    open.min_p = question->sampling.min_p;
    open.repetition_penalty = question->sampling.repetition_penalty;
    open.seed = question->sampling.seed;
    open.logprobs = (uint32_t)question->logprobs;
    open.report_logprobs = question->logprobs > 0;
    fill_attention(question, &open);
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_OPEN;
    message.question_open = &open;
    send(link, &message);
    send_ids(link, question->key, &question->tokens, false);
}

void worker_link_cancel_question(struct worker_link *link, uint64_t key)
{
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__QuestionCancel cancel = TCA__CONTROL__V1__QUESTION_CANCEL__INIT;

    cancel.key = key;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_CANCEL;
    message.question_cancel = &cancel;
    send(link, &message);
}

void worker_link_stop(struct worker_link *link)
{
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__Stop stop = TCA__CONTROL__V1__STOP__INIT;

    if (link->call == NULL)
        return;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_STOP;
    message.stop = &stop;
    send(link, &message); /* the group ends its side of the stream when it has left */
}

static void send_welcome(struct coordinator *coordinator)
{
    const struct coordinator_options *options = coordinator->options;
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__Welcome welcome = TCA__CONTROL__V1__WELCOME__INIT;

    welcome.model_folder = message_text(coordinator->model_folder);
    welcome.device = message_text(options_device_name(options->device));
    welcome.threads = (uint32_t)options->threads;
    welcome.kv_memory_bytes = (uint64_t)options->kv_memory;
    welcome.chunk_tokens = (uint32_t)options->chunk;
    welcome.dummy_weights = options->weights == OPTIONS_WEIGHTS_DUMMY;
    welcome.max_sequences = (uint32_t)options->max_running;
    welcome.max_tokens = (uint64_t)coordinator->max_tokens;
    welcome.window_tokens = (uint32_t)options->window;
    welcome.refresh_every = (uint32_t)options->refresh_every;
    welcome.profile = message_text(coordinator->profile);
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    send(&coordinator->link, &message);
}

/* Receiving. */

/* As long for any guess of the same length: the time tells nothing about the secret. */
static bool is_secret(const struct coordinator *coordinator, ProtobufCBinaryData guess)
{
    const size_t bytes = strlen(coordinator->secret);
    volatile uint8_t difference = guess.len != bytes;

    for (size_t i = 0; i < guess.len && i < bytes; i++)
        difference = (uint8_t)(difference | (guess.data[i] ^ (uint8_t)coordinator->secret[i]));
    return difference == 0;
}

static void refuse(struct rpc_call *call, enum rpc_code code, const char *text)
{
    log_warn("a worker group at %s is refused: %s", rpc_call_peer(call), text);
    rpc_call_finish(call, code, text, NULL, 0);
}

static void take_hello(struct coordinator *coordinator, struct rpc_call *call,
                       const Tca__Control__V1__Hello *hello)
{
    struct worker_link *link = &coordinator->link;
    const char *version = tca_version();

    if (!is_secret(coordinator, hello->secret)) {
        refuse(call, RPC_UNAUTHENTICATED, "the secret is wrong");
        return;
    }
    if (hello->version.len != strlen(version) ||
        memcmp(hello->version.data, version, hello->version.len) != 0) {
        refuse(call, RPC_FAILED_PRECONDITION, "the workers are of another version");
        return;
    }
    if (link->state != WORKER_LINK_NONE || coordinator->phase != COORDINATOR_STARTING) {
        refuse(call, RPC_FAILED_PRECONDITION, "there is, or was, a worker group");
        return;
    }
    log_info("a worker group of %u ranks has come from %s", hello->ranks, rpc_call_peer(call));
    link->state = WORKER_LINK_GREETED;
    link->call = call;
    link->heard_ms = clock_monotonic_ms();
    rpc_call_set_user(call, link);
    send_welcome(coordinator);
}

/* A message of the admitted group. false: the group breaks the protocol. Takes Ready's body. */
static bool take_message(struct coordinator *coordinator, Tca__Control__V1__WorkerMessage *message)
{
    struct worker_link *link = &coordinator->link;
    const bool is_ready = link->state == WORKER_LINK_READY;

    switch (message->body_case) {
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY:
        if (is_ready)
            return false;
        link->ready = message->ready;
        message->ready = NULL;
        message->body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY__NOT_SET;
        link->state = WORKER_LINK_READY;
        coordinator_group_ready(coordinator);
        return true;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_ALIVE:
        if ((int64_t)message->alive->oldest_answer_ms >=
            coordinator->options->worker_timeout * 1000)
            coordinator_group_lost(coordinator, "a worker does not answer any more");
        return true;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_PROGRESS:
        group_document_progress(coordinator, message->document_progress);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_DONE:
        group_document_done(coordinator, message->document_done);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_PROGRESS:
        group_question_progress(coordinator, message->question_progress);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_TOKENS:
        group_question_tokens(coordinator, message->question_tokens);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_SELECTION:
        group_question_selection(coordinator, message->question_selection);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_EVICTED:
        group_question_evicted(coordinator, message->question_evicted);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_DONE:
        group_question_done(coordinator, message->question_done);
        return is_ready;
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_GROUP_FAILED: {
        struct tca_error reason;

        tca_fail(&reason, TCA_OK, "the workers failed: %.*s",
                 (int)message->group_failed->message.len,
                 (const char *)message->group_failed->message.data);
        coordinator_group_lost(coordinator, reason.text);
        return true;
    }
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY_HELLO:
    case TCA__CONTROL__V1__WORKER_MESSAGE__BODY__NOT_SET:
    case _TCA__CONTROL__V1__WORKER_MESSAGE__BODY__CASE_IS_INT_SIZE:
        break;
    }
    return false;
}

static void on_message(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    struct worker_link *link = &coordinator->link;
    const bool is_admitted = rpc_call_user(call) != NULL;
    Tca__Control__V1__WorkerMessage *message =
        is_admitted || bytes <= HELLO_BYTES_MAX
            ? tca__control__v1__worker_message__unpack(NULL, bytes, data)
            : NULL;

    pthread_mutex_lock(&coordinator->lock);
    if (message == NULL) {
        refuse(call, RPC_INVALID_ARGUMENT, "its message cannot be read");
    } else if (link->call == call) {
        link->heard_ms = clock_monotonic_ms();
        if (!take_message(coordinator, message))
            refuse(call, RPC_INVALID_ARGUMENT, "its message is not one that may come now");
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_HELLO) {
        take_hello(coordinator, call, message->hello);
    } else {
        refuse(call, RPC_INVALID_ARGUMENT, "its first message is no Hello");
    }
    pthread_mutex_unlock(&coordinator->lock);
    if (message != NULL)
        tca__control__v1__worker_message__free_unpacked(message, NULL);
    rpc_call_read_next(call);
}

static void on_half_close(struct rpc_call *call, void *context)
{
    (void)context;
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
}

static void on_closed(struct rpc_call *call, void *context)
{
    struct coordinator *coordinator = context;
    struct worker_link *link = &coordinator->link;

    pthread_mutex_lock(&coordinator->lock);
    if (link->call == call) {
        link->call = NULL;
        link->state = WORKER_LINK_GONE;
        coordinator_group_lost(coordinator, "the workers closed their connection");
    }
    pthread_mutex_unlock(&coordinator->lock);
}

struct rpc_method worker_link_method(struct coordinator *coordinator)
{
    return (struct rpc_method){.path = "/tca.control.v1.Control/Attach",
                               .client_streams = true,
                               .context = coordinator,
                               .message = on_message,
                               .half_close = on_half_close,
                               .closed = on_closed};
}

void worker_link_tick(struct coordinator *coordinator, int64_t now_ms)
{
    struct worker_link *link = &coordinator->link;

    flush(link);
    /* This process itself stood still: what the group said meanwhile is yet to be read. */
    if (now_ms - link->ticked_ms > AWAY_MS)
        link->heard_ms = now_ms;
    link->ticked_ms = now_ms;
    if (link->state == WORKER_LINK_READY && now_ms - link->heard_ms > SILENCE_MS)
        coordinator_group_lost(coordinator, "the workers have gone silent");
}

void worker_link_free(struct worker_link *link)
{
    while (link->first != NULL) {
        struct outgoing_message *message = link->first;

        link->first = message->next;
        free(message);
    }
    if (link->ready != NULL)
        tca__control__v1__ready__free_unpacked(link->ready, NULL);
    *link = (struct worker_link){0};
}
