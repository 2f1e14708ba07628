#include "tests/unit/proto/echo_service.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void count_start(struct rpc_call *call, void *context)
{
    struct echo_service *service = context;

    rpc_call_set_user(call, service);
    atomic_fetch_add(&service->started, 1);
}

static void count_closed(struct rpc_call *call, void *context)
{
    struct echo_service *service = context;

    if (rpc_call_user(call) != NULL)
        atomic_fetch_add(&service->closed, 1);
}

static void finish_ok(struct rpc_call *call)
{
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
}

static void unary(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    count_start(call, context);
    rpc_call_send(call, data, bytes);
    finish_ok(call);
}

/* The sum is kept in the user pointer. */
static void collect(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    (void)context;
    (void)data;
    rpc_call_set_user(call, (void *)((uintptr_t)rpc_call_user(call) + bytes));
    rpc_call_read_next(call);
}

static void collect_end(struct rpc_call *call, void *context)
{
    char text[32];
    const int bytes = snprintf(text, sizeof(text), "%zu", (size_t)rpc_call_user(call));

    (void)context;
    rpc_call_send(call, text, (size_t)bytes);
    finish_ok(call);
}

struct counting {
    struct rpc_call *call;
    long count;
};

static void *count_thread(void *argument)
{
    struct counting *counting = argument;
    const struct timespec pause = {.tv_nsec = 1000000};

    for (long i = 0; i < counting->count; i++) {
        char text[32];
        const int bytes = snprintf(text, sizeof(text), "%ld", i);
        enum tca_status status;

        while ((status = rpc_call_send(counting->call, text, (size_t)bytes)) == TCA_ERR_BUSY)
            nanosleep(&pause, NULL);
        if (status != TCA_OK)
            break;
    }
    finish_ok(counting->call);
    rpc_call_drop(counting->call);
    free(counting);
    return NULL;
}

/* From a thread of its own: every function but the callbacks may be called from anywhere. */
static void count(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct counting *counting = calloc(1, sizeof(*counting));
    char text[32] = "";
    pthread_t thread;

    count_start(call, context);
    memcpy(text, data, bytes < sizeof(text) - 1 ? bytes : sizeof(text) - 1);
    counting->call = rpc_call_hold(call);
    counting->count = strtol(text, NULL, 10);
    if (pthread_create(&thread, NULL, count_thread, counting) == 0)
        pthread_detach(thread);
}

static void chat(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    if (rpc_call_user(call) == NULL)
        count_start(call, context);
    if (rpc_call_send(call, data, bytes) == TCA_ERR_BUSY)
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "read your answers", NULL, 0);
    rpc_call_read_next(call);
}

static void chat_end(struct rpc_call *call, void *context)
{
    (void)context;
    finish_ok(call);
}

static void flood(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    static const uint8_t zeros[ECHO_FLOOD_BYTES];
    char text[32];
    int sent = 0;

    (void)data;
    (void)bytes;
    count_start(call, context);
    while (rpc_call_send(call, zeros, sizeof(zeros)) == TCA_OK)
        sent++;
    snprintf(text, sizeof(text), "%d", sent);
    rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, text, NULL, 0);
}

static void fail(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    char *text = calloc(bytes + 1, 1);

    count_start(call, context);
    memcpy(text, data, bytes);
    rpc_call_finish(call, RPC_INVALID_ARGUMENT, text, data, bytes);
    free(text);
}

static void hang(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    count_start(call, context);
}

static void stats(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct echo_service *service = context;
    char text[64];
    const int length = snprintf(text, sizeof(text), "%d %d", atomic_load(&service->started),
                                atomic_load(&service->closed));

    (void)data;
    (void)bytes;
    rpc_call_send(call, text, (size_t)length);
    finish_ok(call);
}

void echo_service_init(struct echo_service *service)
{
    const struct rpc_method methods[ECHO_METHODS] = {
        {.path = "/test.Echo/Unary", .message = unary, .closed = count_closed},
        {.path = "/test.Echo/Collect",
         .client_streams = true,
         .message = collect,
         .half_close = collect_end},
        {.path = "/test.Echo/Count", .message = count, .closed = count_closed},
        {.path = "/test.Echo/Chat",
         .client_streams = true,
         .message = chat,
         .half_close = chat_end,
         .closed = count_closed},
        {.path = "/test.Echo/Flood", .message = flood, .closed = count_closed},
        {.path = "/test.Echo/Fail", .message = fail, .closed = count_closed},
        {.path = "/test.Echo/Hang", .message = hang, .closed = count_closed},
        {.path = "/test.Echo/Stats", .message = stats},
    };

    memset(service, 0, sizeof(*service));
    memcpy(service->methods, methods, sizeof(methods));
    for (int i = 0; i < ECHO_METHODS; i++)
        service->methods[i].context = service;
}
