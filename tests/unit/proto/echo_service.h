/* A service for the tests of proto/: every kind of call, over plain bytes instead of messages.
 *
 * /test.Echo/Unary    answers with its request
 * /test.Echo/Collect  client stream: the sum of its messages' bytes, as decimal text
 * /test.Echo/Count    decimal text n: streams "0" to n - 1, the client paced by its flow control
 * /test.Echo/Chat     both stream: every message back
 * /test.Echo/Flood    streams 64 KiB messages until the server says BUSY, then ends
 *                     RESOURCE_EXHAUSTED with their number as its message
 * /test.Echo/Fail     ends INVALID_ARGUMENT with the request as message and as details
 * /test.Echo/Hang     never answers
 * /test.Echo/Stats    "started closed", decimal, of all other calls that had a message */
#ifndef TESTS_UNIT_PROTO_ECHO_SERVICE_H
#define TESTS_UNIT_PROTO_ECHO_SERVICE_H

#include "proto/rpc_server.h"

#include <stdatomic.h>

enum { ECHO_METHODS = 8, ECHO_FLOOD_BYTES = 64 * 1024 };

struct echo_service {
    atomic_int started;
    atomic_int closed;
    struct rpc_method methods[ECHO_METHODS];
};

void echo_service_init(struct echo_service *service);

#endif
