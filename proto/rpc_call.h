/* Between rpc_server.c (listening, pollers) and rpc_call.c (the life of one call). Private to
 * proto/. */
#ifndef PROTO_RPC_CALL_H
#define PROTO_RPC_CALL_H

#include "proto/rpc_server.h"

#include <grpc/grpc.h>

#include <stdatomic.h>

/* What a completion queue hands back: who it is for. Armed right before its operation is started;
 * that orders what was prepared with what the poller does, whatever C-core uses in between. */
struct rpc_event {
    atomic_bool is_armed;
    void (*done)(void *owner, bool ok);
    void *owner;
};

static inline void rpc_event_init(struct rpc_event *event, void (*done)(void *owner, bool ok),
                                  void *owner)
{
    event->done = done;
    event->owner = owner;
}

/* Take over a call that the server accepted: reads its first message and runs its method's
 * callbacks; `method` NULL ends it UNIMPLEMENTED. On TCA_OK it takes `handle`, and calls
 * rpc_server_call_ended when it is done with it. */
enum tca_status rpc_call_start(struct rpc_server *server, const struct rpc_method *method,
                               grpc_call *handle, const grpc_call_details *details);

void rpc_server_call_ended(struct rpc_server *server);

/* A call that waits for its client: for its first request, or, once finished, until everything is
 * read. The one whose client has done nothing for the longest is ended first. */
struct rpc_stalled {
    grpc_call *handle; /* borrowed: while it is in the list, its call keeps it */
    bool is_answered;  /* finished: the client has to read */
    size_t bytes;      /* that wait to be written */
    int64_t until_ms;
    struct rpc_stalled *previous, *next;
    bool is_listed;
};

/* The call begins, has been finished, or its client has read something since: it has this much
 * left, and all the time again. May end others. */
void rpc_server_stalled_renew(struct rpc_server *server, struct rpc_stalled *stalled,
                              bool is_answered, size_t bytes);
/* Once the request is there, everything is read, or the client is gone; before the handle is let
 * go. Unlisted: nothing. */
void rpc_server_stalled_remove(struct rpc_server *server, struct rpc_stalled *stalled);

#endif
