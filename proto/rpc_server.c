/* Listening and polling. Several pollers share one completion queue; as many accepts wait on it as
 * there are pollers, and each is renewed as soon as its call has been handed to rpc_call.c. */
#include "proto/rpc_server.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/rpc_call.h"
#include "proto/rpc_core.h"

#include <grpc/grpc.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    STALLED_MS = 120 * 1000, /* a message of 4 MiB comes through 35 kB/s in that time */
    STALLED_BYTES_MAX = 64 * 1024 * 1024,
    LOOK_MS = 1000, /* at what is stalled, or earlier */
};

struct accept {
    struct rpc_event event;
    struct rpc_server *server;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array headers; /* C-core wants to tell them; nobody reads them */
};

struct rpc_server {
    grpc_server *handle;
    grpc_completion_queue *queue;
    const struct rpc_method *methods;
    size_t method_count;
    pthread_t *pollers;     /* [threads], owned */
    struct accept *accepts; /* [threads], owned */
    int threads;
    int pollers_running;

    struct rpc_event down;
    pthread_mutex_t mutex; /* guards the rest, and each accept while it waits */
    pthread_cond_t changed;
    int open_calls;
    bool is_stopping; /* new calls are refused */
    bool is_down;     /* listeners and connections are shut */
    struct rpc_stalled *stalled_first, *stalled_last;
    size_t stalled_bytes, stalled_bytes_max;
    int64_t stalled_ms;
};

static void accept_next(struct accept *accept)
{
    struct rpc_server *server = accept->server;
    grpc_call_error refused;

    grpc_call_details_init(&accept->details);
    grpc_metadata_array_init(&accept->headers);
    accept->call = NULL;
    atomic_store(&accept->event.is_armed, true);
    refused =
        grpc_server_request_call(server->handle, &accept->call, &accept->details, &accept->headers,
                                 server->queue, server->queue, &accept->event);
    if (refused != GRPC_CALL_OK)
        log_error("grpc refuses to accept calls: %s", grpc_call_error_to_string(refused));
}

static const struct rpc_method *method_find(const struct rpc_server *server, grpc_slice path)
{
    for (size_t i = 0; i < server->method_count; i++)
        if (grpc_slice_str_cmp(path, server->methods[i].path) == 0)
            return &server->methods[i];
    return NULL;
}

static void accept_done(void *owner, bool ok)
{
    struct accept *accept = owner;
    struct rpc_server *server = accept->server;
    enum tca_status status = TCA_ERR_CANCELLED;
    bool is_taken;
    grpc_call *call;

    pthread_mutex_lock(&server->mutex);
    call = accept->call;
    is_taken = ok && !server->is_stopping;
    if (is_taken)
        server->open_calls++;
    pthread_mutex_unlock(&server->mutex);
    if (is_taken)
        status = rpc_call_start(server, method_find(server, accept->details.method), call,
                                &accept->details);
    if (is_taken && status != TCA_OK) {
        log_error("a call is refused: %s", tca_status_text(status));
        grpc_call_unref(call);
        rpc_server_call_ended(server);
    }
    if (ok && !is_taken) {
        grpc_call_cancel_with_status(call, GRPC_STATUS_UNAVAILABLE, "the server is stopping", NULL);
        grpc_call_unref(call);
    }

    pthread_mutex_lock(&server->mutex);
    grpc_call_details_destroy(&accept->details);
    grpc_metadata_array_destroy(&accept->headers);
    if (ok && !server->is_down)
        accept_next(accept);
    pthread_mutex_unlock(&server->mutex);
}

static void down_done(void *owner, bool ok)
{
    struct rpc_server *server = owner;

    (void)ok;
    pthread_mutex_lock(&server->mutex);
    server->is_down = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

void rpc_server_call_ended(struct rpc_server *server)
{
    pthread_mutex_lock(&server->mutex);
    server->open_calls--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

/* What clients leave waiting. All with the mutex held. */

static void stalled_unlink(struct rpc_server *server, struct rpc_stalled *stalled)
{
    *(stalled->previous != NULL ? &stalled->previous->next : &server->stalled_first) =
        stalled->next;
    *(stalled->next != NULL ? &stalled->next->previous : &server->stalled_last) = stalled->previous;
    server->stalled_bytes -= stalled->bytes;
    stalled->is_listed = false;
}

static void stalled_append(struct rpc_server *server, struct rpc_stalled *stalled, size_t bytes)
{
    stalled->bytes = bytes;
    stalled->until_ms = clock_monotonic_ms() + server->stalled_ms;
    stalled->previous = server->stalled_last;
    stalled->next = NULL;
    *(stalled->previous != NULL ? &stalled->previous->next : &server->stalled_first) = stalled;
    server->stalled_last = stalled;
    server->stalled_bytes += bytes;
    stalled->is_listed = true;
}

/* The oldest whose time is over, or that holds some of what is too much. */
static struct rpc_stalled *stalled_to_end(const struct rpc_server *server)
{
    struct rpc_stalled *oldest = server->stalled_first;

    if (oldest == NULL || clock_monotonic_ms() >= oldest->until_ms)
        return oldest;
    if (server->stalled_bytes <= server->stalled_bytes_max)
        return NULL;
    while (oldest->bytes == 0)
        oldest = oldest->next;
    return oldest;
}

/* They end as calls do whose clients are gone: what they hold is freed when C-core is done. */
static void stalled_end_oldest(struct rpc_server *server)
{
    struct rpc_stalled *oldest;

    while ((oldest = stalled_to_end(server)) != NULL) {
        const char *why = oldest->is_answered ? "the client does not read the response"
                                              : "the client sends no request";

        log_info("a call is cancelled: %s (%zu bytes wait)", why, oldest->bytes);
        stalled_unlink(server, oldest);
        grpc_call_cancel_with_status(oldest->handle,
                                     oldest->is_answered ? GRPC_STATUS_RESOURCE_EXHAUSTED
                                                         : GRPC_STATUS_DEADLINE_EXCEEDED,
                                     why, NULL);
    }
}

void rpc_server_stalled_renew(struct rpc_server *server, struct rpc_stalled *stalled,
                              bool is_answered, size_t bytes)
{
    pthread_mutex_lock(&server->mutex);
    if (stalled->is_listed)
        stalled_unlink(server, stalled);
    stalled->is_answered = is_answered;
    stalled_append(server, stalled, bytes);
    stalled_end_oldest(server);
    pthread_mutex_unlock(&server->mutex);
}

void rpc_server_stalled_remove(struct rpc_server *server, struct rpc_stalled *stalled)
{
    pthread_mutex_lock(&server->mutex);
    if (stalled->is_listed)
        stalled_unlink(server, stalled);
    pthread_mutex_unlock(&server->mutex);
}

void rpc_server_limit_stalled(struct rpc_server *server, int64_t ms, size_t bytes)
{
    pthread_mutex_lock(&server->mutex);
    server->stalled_ms = ms;
    server->stalled_bytes_max = bytes;
    pthread_mutex_unlock(&server->mutex);
}

static void *poll_queue(void *argument)
{
    struct rpc_server *server = argument;

    for (;;) {
        const grpc_event event =
            grpc_completion_queue_next(server->queue, rpc_core_deadline(LOOK_MS), NULL);

        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        pthread_mutex_lock(&server->mutex);
        stalled_end_oldest(server);
        pthread_mutex_unlock(&server->mutex);
        if (event.type == GRPC_QUEUE_TIMEOUT)
            continue;
        struct rpc_event *target = event.tag;
        atomic_exchange(&target->is_armed, false);
        target->done(target->owner, event.success != 0);
    }
}

static enum tca_status server_allocate(int threads, struct rpc_server **server_out)
{
    struct rpc_server *server = calloc(1, sizeof(*server));
    pthread_condattr_t attributes;

    if (server == NULL)
        return TCA_ERR_NO_MEMORY;
    server->pollers = calloc((size_t)threads, sizeof(*server->pollers));
    server->accepts = calloc((size_t)threads, sizeof(*server->accepts));
    if (server->pollers == NULL || server->accepts == NULL) {
        free(server->pollers);
        free(server->accepts);
        free(server);
        return TCA_ERR_NO_MEMORY;
    }
    server->threads = threads;
    server->stalled_ms = STALLED_MS;
    server->stalled_bytes_max = STALLED_BYTES_MAX;
    rpc_event_init(&server->down, down_done, server);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *server_out = server;
    return TCA_OK;
}

static void server_free(struct rpc_server *server)
{
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    free(server->pollers);
    free(server->accepts);
    free(server);
}

/* Wait until every call has ended, with `for_down` until the server is shut too, at most until
 * `until_ms`. */
static void server_wait(struct rpc_server *server, bool for_down, int64_t until_ms)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                                   .tv_nsec = (long)(until_ms % 1000) * 1000000};
    int failure = 0;

    pthread_mutex_lock(&server->mutex);
    while (failure == 0 && (server->open_calls > 0 || (for_down && !server->is_down)))
        failure = pthread_cond_timedwait(&server->changed, &server->mutex, &until);
    pthread_mutex_unlock(&server->mutex);
}

/* The calls end before the shutdown begins: then C-core pings each client and closes its connection
 * after the answer, when it has read all it was sent. With calls open, C-core closes as soon as the
 * last one has ended here; a client that sends anything before it has read to its status, be it the
 * room for more, is reset by TCP and gets UNAVAILABLE instead. */
void rpc_server_stop(struct rpc_server *server, int64_t grace_ms)
{
    const int64_t until_ms = clock_monotonic_ms() + grace_ms;

    if (server == NULL)
        return;
    pthread_mutex_lock(&server->mutex);
    server->is_stopping = true;
    pthread_mutex_unlock(&server->mutex);
    if (server->pollers_running > 0)
        server_wait(server, false, until_ms);
    atomic_store(&server->down.is_armed, true);
    grpc_server_shutdown_and_notify(server->handle, server->queue, &server->down);
    if (server->pollers_running > 0) {
        server_wait(server, true, until_ms);
        grpc_server_cancel_all_calls(server->handle);
        pthread_mutex_lock(&server->mutex);
        while (server->open_calls > 0 || !server->is_down)
            pthread_cond_wait(&server->changed, &server->mutex);
        pthread_mutex_unlock(&server->mutex);
    }
    grpc_completion_queue_shutdown(server->queue);
    for (int i = 0; i < server->pollers_running; i++)
        pthread_join(server->pollers[i], NULL);
    if (server->pollers_running == 0) /* a start that failed: nobody else empties the queue */
        poll_queue(server);
    grpc_server_destroy(server->handle);
    grpc_completion_queue_destroy(server->queue);
    server_free(server);
    rpc_core_stop();
}

bool rpc_server_is_deaf(void)
{
    return rpc_core_is_deaf();
}

static enum tca_status server_run(struct rpc_server *server, struct tca_error *error)
{
    grpc_server_start(server->handle);
    pthread_mutex_lock(&server->mutex);
    for (int i = 0; i < server->threads; i++) {
        struct accept *accept = &server->accepts[i];

        accept->server = server;
        rpc_event_init(&accept->event, accept_done, accept);
        accept_next(accept);
    }
    pthread_mutex_unlock(&server->mutex);
    for (int i = 0; i < server->threads; i++) {
        if (pthread_create(&server->pollers[i], NULL, poll_queue, server) != 0)
            return tca_fail(error, TCA_ERR_NO_MEMORY, "cannot start %d server threads",
                            server->threads);
        server->pollers_running++;
    }
    return TCA_OK;
}

enum tca_status rpc_server_start(const char *address, const struct rpc_method *methods,
                                 size_t method_count, int threads, struct rpc_server **server_out,
                                 int *port_out, struct tca_error *error)
{
    struct rpc_server *server;
    enum tca_status status;
    int port;

    if (server_allocate(threads, &server) != TCA_OK)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a server");
    rpc_core_start();
    server->methods = methods;
    server->method_count = method_count;
    server->queue = grpc_completion_queue_create_for_next(NULL);
    server->handle = rpc_core_server_create();
    grpc_server_register_completion_queue(server->handle, server->queue, NULL);
    port = rpc_core_server_listen(server->handle, address);
    status = port > 0
                 ? server_run(server, error)
                 : tca_fail(error, TCA_ERR_UNAVAILABLE,
                            "cannot listen on %s: malformed, in use, or not of this host", address);
    if (status != TCA_OK) {
        rpc_server_stop(server, 0);
        return status;
    }
    *server_out = server;
    *port_out = port;
    return TCA_OK;
}
