/* One mutex guards the table and the list of watchers; it is taken before any call's own. */
#include "proto/health.h"

#include "proto/message.h"
#include "proto/reply.h"

#include <grpc/health/v1/health.pb-c.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SERVICE_BYTES_MAX = 256 };

struct entry {
    const char *service; /* borrowed */
    enum health_state state;
};

struct watcher {
    struct watcher *next;
    struct rpc_call *call; /* its user pointer is this watcher, freed by its `closed` */
    enum health_state sent;
    char service[SERVICE_BYTES_MAX + 1];
};

struct health {
    pthread_mutex_t mutex;
    struct entry entries[HEALTH_NAMES_MAX];
    size_t entry_count;
    struct watcher *watchers;
};

enum tca_status health_create(struct health **health_out)
{
    struct health *health = calloc(1, sizeof(*health));

    if (health == NULL)
        return TCA_ERR_NO_MEMORY;
    pthread_mutex_init(&health->mutex, NULL);
    health->entries[0] = (struct entry){"", HEALTH_NOT_SERVING};
    health->entry_count = 1;
    *health_out = health;
    return TCA_OK;
}

void health_destroy(struct health *health)
{
    if (health == NULL)
        return;
    pthread_mutex_destroy(&health->mutex);
    free(health);
}

/* Mutex held. */
static struct entry *entry_find(struct health *health, const char *service)
{
    for (size_t i = 0; i < health->entry_count; i++)
        if (strcmp(health->entries[i].service, service) == 0)
            return &health->entries[i];
    return NULL;
}

static enum health_state state_find(struct health *health, const char *service)
{
    const struct entry *entry = entry_find(health, service);

    return entry != NULL ? entry->state : HEALTH_SERVICE_UNKNOWN;
}

static Grpc__Health__V1__HealthCheckResponse response_of(enum health_state state)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    response.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)state;
    return response;
}

/* Tell the watcher when its service's state is not the one it knows. Mutex held. */
static void watcher_update(struct health *health, struct watcher *watcher)
{
    const enum health_state state = state_find(health, watcher->service);
    const Grpc__Health__V1__HealthCheckResponse response = response_of(state);

    if (watcher->sent == state)
        return;
    watcher->sent = state;
    if (rpc_call_send_message(watcher->call, &response) == TCA_ERR_BUSY)
        rpc_call_finish(watcher->call, RPC_RESOURCE_EXHAUSTED, "the watcher does not read", NULL,
                        0);
}

enum tca_status health_set(struct health *health, const char *service, enum health_state state)
{
    enum tca_status status = TCA_OK;
    struct entry *entry;

    pthread_mutex_lock(&health->mutex);
    entry = entry_find(health, service);
    if (entry != NULL)
        entry->state = state;
    else if (health->entry_count < HEALTH_NAMES_MAX)
        health->entries[health->entry_count++] = (struct entry){service, state};
    else
        status = TCA_ERR_NO_MEMORY;
    for (struct watcher *watcher = health->watchers; watcher != NULL; watcher = watcher->next)
        watcher_update(health, watcher);
    pthread_mutex_unlock(&health->mutex);
    return status;
}

void health_end_watches(struct health *health)
{
    pthread_mutex_lock(&health->mutex);
    for (struct watcher *watcher = health->watchers; watcher != NULL; watcher = watcher->next)
        rpc_call_finish(watcher->call, RPC_UNAVAILABLE, "the server is going down", NULL, 0);
    pthread_mutex_unlock(&health->mutex);
}

/* Unpack the service's name, or end the call. */
static bool request_service(struct rpc_call *call, const uint8_t *data, size_t bytes,
                            char service[SERVICE_BYTES_MAX + 1])
{
    Grpc__Health__V1__HealthCheckRequest *request;
    struct tca_error error;
    void *message;
    enum tca_status status = message_unpack(&grpc__health__v1__health_check_request__descriptor,
                                            data, bytes, &message, &error);

    if (status == TCA_OK) {
        request = message;
        status = message_check_bytes("service", request->service.len, 0, SERVICE_BYTES_MAX, &error);
        if (status == TCA_OK) {
            memset(service, 0, SERVICE_BYTES_MAX + 1);
            if (request->service.len > 0)
                memcpy(service, request->service.data, request->service.len);
        }
        message_free(message);
    }
    if (status != TCA_OK)
        rpc_call_refuse(call, rpc_code_from_status(status), error.text, 0);
    return status == TCA_OK;
}

static void check(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct health *health = context;
    char service[SERVICE_BYTES_MAX + 1];
    Grpc__Health__V1__HealthCheckResponse response;
    enum health_state state;

    if (!request_service(call, data, bytes, service))
        return;
    pthread_mutex_lock(&health->mutex);
    state = state_find(health, service);
    pthread_mutex_unlock(&health->mutex);
    response = response_of(state);
    if (state == HEALTH_SERVICE_UNKNOWN)
        rpc_call_finish(call, RPC_NOT_FOUND, "no such service", NULL, 0);
    else
        rpc_call_reply(call, &response);
}

static void list(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct health *health = context;
    Grpc__Health__V1__HealthListResponse response = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    Grpc__Health__V1__HealthListResponse__StatusesEntry entries[HEALTH_NAMES_MAX];
    Grpc__Health__V1__HealthListResponse__StatusesEntry *pointers[HEALTH_NAMES_MAX];
    Grpc__Health__V1__HealthCheckResponse values[HEALTH_NAMES_MAX];

    (void)data; /* the request has no fields */
    (void)bytes;
    pthread_mutex_lock(&health->mutex);
    for (size_t i = 0; i < health->entry_count; i++) {
        grpc__health__v1__health_list_response__statuses_entry__init(&entries[i]);
        values[i] = response_of(health->entries[i].state);
        entries[i].key = (char *)message_text(health->entries[i].service).data;
        entries[i].value = &values[i];
        pointers[i] = &entries[i];
    }
    response.n_statuses = health->entry_count;
    response.statuses = pointers;
    rpc_call_reply(call, &response);
    pthread_mutex_unlock(&health->mutex);
}

static void watch(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct health *health = context;
    struct watcher *watcher = calloc(1, sizeof(*watcher));

    if (watcher == NULL) {
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
        return;
    }
    if (!request_service(call, data, bytes, watcher->service)) {
        free(watcher);
        return;
    }
    watcher->call = call;
    rpc_call_set_user(call, watcher);
    pthread_mutex_lock(&health->mutex);
    watcher->next = health->watchers;
    health->watchers = watcher;
    watcher_update(health, watcher);
    pthread_mutex_unlock(&health->mutex);
}

static void watch_closed(struct rpc_call *call, void *context)
{
    struct health *health = context;
    struct watcher *watcher = rpc_call_user(call);

    if (watcher == NULL)
        return;
    pthread_mutex_lock(&health->mutex);
    for (struct watcher **at = &health->watchers; *at != NULL; at = &(*at)->next) {
        if (*at == watcher) {
            *at = watcher->next;
            break;
        }
    }
    pthread_mutex_unlock(&health->mutex);
    free(watcher);
}

void health_methods(struct health *health, struct rpc_method methods_out[HEALTH_METHODS])
{
    methods_out[0] = (struct rpc_method){
        .path = "/grpc.health.v1.Health/Check", .context = health, .message = check};
    methods_out[1] = (struct rpc_method){
        .path = "/grpc.health.v1.Health/List", .context = health, .message = list};
    methods_out[2] = (struct rpc_method){.path = "/grpc.health.v1.Health/Watch",
                                         .context = health,
                                         .message = watch,
                                         .closed = watch_closed};
}
