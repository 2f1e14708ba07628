#include "worker/control_link.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/rpc_client.h"
#include "worker/message_queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum {
    QUEUE_BYTES = 8 << 20,
    WELCOME_TIMEOUT_MS = 60 * 1000,
    RETRY_MS = 300,
    ALIVE_MS = 1000,
    SEND_TIMEOUT_MS = 30 * 1000,
    POLL_MS = 1000,
    LAST_WORDS_MS = 3 * 1000,
};

static const char attach_path[] = "/tca.control.v1.Control/Attach";

struct control_link {
    struct rpc_channel *channel;
    struct rpc_stream *stream;
    struct message_queue *incoming;
    struct message_queue *outgoing;
    pthread_t reader, sender;
    bool has_reader, has_sender;
    atomic_llong answered_ms; /* clock_monotonic_ms of the last answer of all ranks; 0: none yet */
    atomic_ullong steps;
    pthread_mutex_t mutex; /* protects what follows */
    pthread_cond_t ended;
    int running_threads;
};

static void thread_ended(struct control_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->running_threads--;
    pthread_cond_broadcast(&link->ended);
    pthread_mutex_unlock(&link->mutex);
}

static void *read_messages(void *argument)
{
    struct control_link *link = argument;
    struct bytes message = {0};
    enum tca_status status = TCA_OK;

    while (status == TCA_OK || status == TCA_ERR_DEADLINE) {
        status = rpc_stream_receive(link->stream, POLL_MS, &message);
        if (status != TCA_OK)
            continue;
        /* A full queue only means that the engine is in a long step. */
        do
            status = message_queue_push(link->incoming, message.data, message.size, POLL_MS);
        while (status == TCA_ERR_DEADLINE);
    }
    message_queue_close(link->incoming);
    message_queue_close(link->outgoing);
    bytes_free(&message);
    thread_ended(link);
    return NULL;
}

/* Every second once the ranks have begun to answer. */
static enum tca_status send_alive(struct control_link *link, int64_t now_ms, struct bytes *message)
{
    int64_t answered_ms = atomic_load(&link->answered_ms);

    if (answered_ms == 0)
        return TCA_OK;
    if (control_pack_alive(now_ms > answered_ms ? now_ms - answered_ms : 0,
                           atomic_load(&link->steps), message) != TCA_OK)
        return TCA_OK; /* no memory: the next one says as much */
    return rpc_stream_send(link->stream, message->data, message->size);
}

static void *send_messages(void *argument)
{
    struct control_link *link = argument;
    struct bytes message = {0};
    int64_t alive_ms = clock_monotonic_ms() + ALIVE_MS;
    enum tca_status status = TCA_OK;

    while (status == TCA_OK) {
        int64_t now_ms = clock_monotonic_ms();

        if (now_ms >= alive_ms) {
            status = send_alive(link, now_ms, &message);
            alive_ms = now_ms + ALIVE_MS;
            continue;
        }
        status = message_queue_pop(link->outgoing, alive_ms - now_ms, &message);
        if (status == TCA_OK)
            status = rpc_stream_send(link->stream, message.data, message.size);
        else if (status == TCA_ERR_DEADLINE)
            status = TCA_OK;
    }
    if (status == TCA_ERR_NOT_FOUND) /* closed by us: say goodbye properly */
        rpc_stream_send_end(link->stream);
    message_queue_close(link->outgoing);
    bytes_free(&message);
    thread_ended(link);
    return NULL;
}

/* Nobody there yet: worth another try. */
static bool is_worth_retrying(enum rpc_code code)
{
    return code == RPC_UNAVAILABLE;
}

static enum tca_status status_of_refusal(enum rpc_code code)
{
    if (code == RPC_UNAUTHENTICATED || code == RPC_PERMISSION_DENIED)
        return TCA_ERR_UNAUTHENTICATED;
    return code == RPC_UNAVAILABLE ? TCA_ERR_UNAVAILABLE : TCA_ERR_PRECONDITION;
}

/* One try: Hello and Welcome. On failure *code_out tells why and the stream is gone. */
static enum tca_status greet(struct control_link *link, const struct control_link_options *options,
                             struct bytes *message, enum rpc_code *code_out,
                             struct tca_error *error)
{
    struct tca_error words;
    enum tca_status status;

    *code_out = RPC_INTERNAL;
    if (control_pack_hello(options->secret, options->version, options->ranks, message) != TCA_OK)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the control link");
    TCA_TRY(rpc_stream_open(link->channel, attach_path, 0, &link->stream, error));
    rpc_stream_send(link->stream, message->data, message->size); /* a failure shows below */
    status = rpc_stream_receive(link->stream, WELCOME_TIMEOUT_MS, message);
    if (status == TCA_OK)
        return TCA_OK;
    if (status == TCA_ERR_DEADLINE) {
        tca_fail(error, status, "coordinator %s: no Welcome within %d s", options->coordinator,
                 WELCOME_TIMEOUT_MS / 1000);
        rpc_stream_cancel(link->stream);
    } else {
        *code_out = rpc_stream_finish(link->stream, &words, NULL);
        status = tca_fail(error, status_of_refusal(*code_out), "coordinator %s: %s: %s",
                          options->coordinator, rpc_code_name(*code_out), words.text);
    }
    rpc_stream_close(link->stream);
    link->stream = NULL;
    return status;
}

static enum tca_status start_threads(struct control_link *link, struct tca_error *error)
{
    if (message_queue_create(QUEUE_BYTES, &link->incoming) != TCA_OK ||
        message_queue_create(QUEUE_BYTES, &link->outgoing) != TCA_OK)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the control link");
    link->running_threads = 2;
    link->has_reader = pthread_create(&link->reader, NULL, read_messages, link) == 0;
    link->has_sender =
        link->has_reader && pthread_create(&link->sender, NULL, send_messages, link) == 0;
    if (!link->has_sender)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "cannot start the control link's threads");
    return TCA_OK;
}

static enum tca_status attach(struct control_link *link, const struct control_link_options *options,
                              struct group_settings *settings_out, struct tca_error *error)
{
    int64_t give_up_ms = clock_monotonic_ms() + options->connect_timeout_ms;
    struct bytes message = {0};
    enum rpc_code code;
    enum tca_status status;

    TCA_TRY(rpc_channel_open(options->coordinator, &link->channel, error));
    status = greet(link, options, &message, &code, error);
    while (status != TCA_OK && is_worth_retrying(code) && clock_monotonic_ms() < give_up_ms) {
        clock_sleep_ms(RETRY_MS);
        status = greet(link, options, &message, &code, error);
    }
    if (status == TCA_OK)
        status = control_read_welcome(&message, settings_out, error);
    bytes_free(&message);
    TCA_TRY(status);
    return start_threads(link, error);
}

enum tca_status control_link_open(const struct control_link_options *options,
                                  struct control_link **link_out,
                                  struct group_settings *settings_out, struct tca_error *error)
{
    struct control_link *link = calloc(1, sizeof(*link));
    pthread_condattr_t monotonic;
    enum tca_status status;

    if (link == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the control link");
    pthread_mutex_init(&link->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&link->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    status = attach(link, options, settings_out, error);
    if (status != TCA_OK) {
        control_link_close(link);
        return status;
    }
    *link_out = link;
    return TCA_OK;
}

enum tca_status control_link_receive(struct control_link *link, int64_t timeout_ms,
                                     struct bytes *message)
{
    return message_queue_pop(link->incoming, timeout_ms, message);
}

enum tca_status control_link_send(struct control_link *link, const struct bytes *message)
{
    return message_queue_push(link->outgoing, message->data, message->size, SEND_TIMEOUT_MS);
}

void control_link_answered(struct control_link *link, uint64_t steps)
{
    atomic_store(&link->steps, steps);
    atomic_store(&link->answered_ms, clock_monotonic_ms());
}

/* Give the sender a moment for what is queued, and the coordinator one to end the stream: what a
 * cancelled stream still carried would be lost. */
static void wait_for_threads(struct control_link *link)
{
    struct timespec deadline;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += LAST_WORDS_MS / 1000;
    pthread_mutex_lock(&link->mutex);
    while (link->running_threads > 0 &&
           pthread_cond_timedwait(&link->ended, &link->mutex, &deadline) == 0)
        ;
    pthread_mutex_unlock(&link->mutex);
}

void control_link_close(struct control_link *link)
{
    if (link == NULL)
        return;
    if (link->outgoing != NULL)
        message_queue_close(link->outgoing);
    if (link->has_sender)
        wait_for_threads(link);
    if (link->incoming != NULL)
        message_queue_close(link->incoming);
    if (link->stream != NULL)
        rpc_stream_cancel(link->stream);
    if (link->has_reader)
        pthread_join(link->reader, NULL);
    if (link->has_sender)
        pthread_join(link->sender, NULL);
    rpc_stream_close(link->stream);
    rpc_channel_close(link->channel);
    message_queue_destroy(link->incoming);
    message_queue_destroy(link->outgoing);
    pthread_cond_destroy(&link->ended);
    pthread_mutex_destroy(&link->mutex);
    free(link);
}
