/* A gRPC server over C-core's completion queue: methods are a table of callbacks.
 *
 * Callbacks run on the server's poller threads; those of one call never run at the same time.
 * They must not block for long. Every other function here may be called from any thread, inside
 * callbacks too.
 *
 * Life of a call: `message` (each request message, in order; the next one is read only after
 * rpc_call_read_next), `half_close` (the client sent its last; a client that goes away may look
 * like one until `closed`), and always, exactly once and last, `closed`: after the status went out,
 * or when the client is gone or its deadline has passed; also when there was no `message` before
 * it. Nothing but `closed` comes after rpc_call_finish. */
#ifndef PROTO_RPC_SERVER_H
#define PROTO_RPC_SERVER_H

#include "base/error.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rpc_server;
struct rpc_call;

struct rpc_method {
    const char *path;    /* "/tca.v1.Documents/Get"; borrowed for the server's life */
    bool client_streams; /* false: any number of request messages but one ends the call
                            INVALID_ARGUMENT, `message` is called only when one whole request and
                            the end of the client's stream are there */
    void *context;
    void (*message)(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes);
    void (*half_close)(struct rpc_call *call, void *context); /* may be NULL */
    void (*closed)(struct rpc_call *call, void *context);     /* may be NULL */
};

/* Listen on address ("127.0.0.1:50051", "[::1]:0"); *port_out is the port in use. Methods are
 * borrowed; paths outside the table end UNIMPLEMENTED. `threads` pollers.
 * TCA_ERR_UNAVAILABLE: the address cannot be bound. */
enum tca_status rpc_server_start(const char *address, const struct rpc_method *methods,
                                 size_t method_count, int threads, struct rpc_server **server_out,
                                 int *port_out, struct tca_error *error);
/* Take no new calls, give open ones `grace_ms`, cancel the rest, wait for every `closed`. Not from
 * a callback; NULL is a no-op. Calls held beyond it may still be used and dropped. */
void rpc_server_stop(struct rpc_server *server, int64_t grace_ms);
/* A call is cancelled, DEADLINE_EXCEEDED, when its client sends no request for `ms`; one that has
 * been finished, RESOURCE_EXHAUSTED, when its client takes no message of it for `ms`, the oldest
 * ones also while more than `bytes` wait in all of them. Unless this is called: 120 s and 64 MiB.
 */
void rpc_server_limit_stalled(struct rpc_server *server, int64_t ms, size_t bytes);
/* Has any server of this process lost its listener, most likely because descriptors ran out? Only a
 * new process is sure to hear again. Open connections go on. */
bool rpc_server_is_deaf(void);

/* A place for the method's own state; NULL at first. */
void rpc_call_set_user(struct rpc_call *call, void *user);
void *rpc_call_user(const struct rpc_call *call);

/* Keep the call's memory past `closed` (a reference is held until then without asking). */
struct rpc_call *rpc_call_hold(struct rpc_call *call);
void rpc_call_drop(struct rpc_call *call);

/* Read the next request message (client-streaming methods; the first is read unasked). */
void rpc_call_read_next(struct rpc_call *call);

/* Queue one response message (copied). TCA_ERR_BUSY: the client reads too slowly and over 4 MiB
 * or 8192 messages wait; TCA_ERR_CANCELLED: the call is over; TCA_ERR_RANGE: over 4 MiB. */
enum tca_status rpc_call_send(struct rpc_call *call, const void *data, size_t bytes);
/* Messages that wait to be written. */
size_t rpc_call_pending(const struct rpc_call *call);

/* End the call after what is queued. message: UTF-8, cut at 1 KiB, borrowed; details: a serialised
 * google.rpc.Status for grpc-status-details-bin, left out over 2 KiB, or NULL. The first call
 * counts. */
void rpc_call_finish(struct rpc_call *call, enum rpc_code code, const char *message,
                     const void *details, size_t details_bytes);

bool rpc_call_is_over(const struct rpc_call *call); /* finished, cancelled or deadline passed */
int64_t rpc_call_deadline_ms(const struct rpc_call *call); /* clock_monotonic_ms; INT64_MAX: none */
const char *rpc_call_peer(const struct rpc_call *call);

#endif
