/* Between rpc_server.c (listening, pollers) and rpc_call.c (the life of one call). Private to
 * proto/. */
#ifndef PROTO_RPC_CALL_H
#define PROTO_RPC_CALL_H

#include "proto/rpc_server.h"

#include <grpc/grpc.h>

/* What a completion queue hands back: who it is for. */
struct rpc_event {
    void (*done)(void *owner, bool ok);
    void *owner;
};

/* Take over a call that the server accepted: reads its first message and runs its method's
 * callbacks; `method` NULL ends it UNIMPLEMENTED. On TCA_OK it takes `handle`, and calls
 * rpc_server_call_ended when it is done with it. `path` and `headers` are copied. */
enum tca_status rpc_call_start(struct rpc_server *server, const struct rpc_method *method,
                               grpc_call *handle, const grpc_call_details *details,
                               const grpc_metadata_array *headers);

void rpc_server_call_ended(struct rpc_server *server);

#endif
