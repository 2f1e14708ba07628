/* For test_interop.py: the echo service, health, reflection and two methods of the public API.
 *
 * Prints its port. Reads lines from stdin: "serving NAME" and "not_serving NAME" set health states,
 * "end_watches" ends the watchers, anything else is an error. At the end of stdin it stops, at
 * "drain" it does so patiently, and prints "STARTED CLOSED", the echo service's counts. */
#include "proto/health.h"
#include "proto/message.h"
#include "proto/reflection.h"
#include "proto/reply.h"
#include "tca.pb-c.h"
#include "tests/unit/proto/echo_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    API_METHODS = 2,
    METHODS = ECHO_METHODS + HEALTH_METHODS + REFLECTION_METHODS + API_METHODS
};

/* One id a byte. */
static void tokenize(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    Tca__V1__TokenizeResponse response = TCA__V1__TOKENIZE_RESPONSE__INIT;
    const Tca__V1__TokenizeRequest *request;
    struct tca_error error;
    void *message;
    const enum tca_status status =
        message_unpack(&tca__v1__tokenize_request__descriptor, data, bytes, &message, &error);

    (void)context;
    if (status != TCA_OK) {
        rpc_call_refuse(call, rpc_code_from_status(status), error.text, 0);
        return;
    }
    request = message;
    response.n_token_ids = request->text.len;
    response.token_ids = calloc(request->text.len + 1, sizeof(int32_t));
    for (size_t i = 0; i < request->text.len; i++)
        response.token_ids[i] = request->text.data[i];
    rpc_call_reply(call, &response);
    free(response.token_ids);
    message_free(message);
}

static void cancel(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    (void)context;
    (void)data;
    (void)bytes;
    rpc_call_refuse(call, RPC_RESOURCE_EXHAUSTED, "the queue is full", 1500);
}

/* False when the server is to stop: at the end of stdin, or patiently at "drain". */
static bool obey(struct health *health, char names[][64], int *name_count, int *grace_ms)
{
    char line[128];
    char command[32] = "";
    char name[64] = "";

    if (fgets(line, sizeof(line), stdin) == NULL)
        return false;
    sscanf(line, "%31s %63s", command, name);
    if (strcmp(command, "end_watches") == 0) {
        health_end_watches(health);
        return true;
    }
    if (strcmp(command, "drain") == 0) {
        *grace_ms = 60000;
        return false;
    }
    memcpy(names[*name_count], name, sizeof(name)); /* borrowed by the table if it is new */
    if (health_set(health, names[(*name_count)++],
                   strcmp(command, "serving") == 0 ? HEALTH_SERVING : HEALTH_NOT_SERVING) != TCA_OK)
        return false;
    puts("set");
    fflush(stdout);
    return true;
}

int main(void)
{
    struct echo_service service;
    struct health *health;
    struct reflection *reflection;
    struct rpc_server *server;
    struct rpc_method methods[METHODS] = {
        {.path = "/tca.v1.Generation/Tokenize", .message = tokenize},
        {.path = "/tca.v1.Generation/Cancel", .message = cancel}};
    struct tca_error error;
    char names[64][64];
    int name_count = 0;
    int grace_ms = 100;
    int port;

    echo_service_init(&service);
    if (health_create(&health) != TCA_OK || reflection_create(&reflection) != TCA_OK)
        return EXIT_FAILURE;
    memcpy(methods + API_METHODS, service.methods, sizeof(service.methods));
    health_methods(health, methods + API_METHODS + ECHO_METHODS);
    reflection_methods(reflection, methods + API_METHODS + ECHO_METHODS + HEALTH_METHODS);
    if (rpc_server_start("127.0.0.1:0", methods, METHODS, 2, &server, &port, &error) != TCA_OK) {
        fprintf(stderr, "%s\n", error.text);
        return EXIT_FAILURE;
    }
    printf("%d\n", port);
    fflush(stdout);
    while (name_count < 64 && obey(health, names, &name_count, &grace_ms))
        continue;
    rpc_server_stop(server, grace_ms);
    health_destroy(health);
    reflection_destroy(reflection);
    printf("%d %d\n", atomic_load(&service.started), atomic_load(&service.closed));
    return EXIT_SUCCESS;
}
