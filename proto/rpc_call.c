/* The life of one call on the server.
 *
 * C-core has no way for another thread to wake a poller, so whoever has something to write starts
 * the write itself, under the call's mutex, unless one is in flight; the poller that sees that one
 * end starts the next. At most one read, one write and the wait for the call's end are in flight.
 *
 * What arrives is noted under the mutex and handed to the method's callbacks by the one poller
 * that holds `is_dispatching`, without the mutex: so the callbacks of one call never overlap. */
#include "proto/rpc_call.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "proto/rpc_core.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    PENDING_MESSAGES_MAX = 8192,
    STATUS_TEXT_BYTES_MAX = 1024, /* clients accept 8 KiB of trailers, and a byte may take three */
    STATUS_DETAILS_BYTES_MAX = 2048,
};

struct outgoing {
    struct outgoing *next;
    grpc_byte_buffer *message; /* owned */
    size_t bytes;
};

struct rpc_call {
    struct rpc_server *server;
    const struct rpc_method *method; /* NULL: unknown path */
    char *peer;                      /* owned, from C-core */
    int64_t deadline_ms;
    struct rpc_event closed_event, read_event, write_event;
    struct rpc_stalled stalled; /* guarded by the server */
    atomic_int references;
    atomic_bool is_over;
    atomic_size_t pending_messages;
    _Atomic(void *) user;

    pthread_mutex_t mutex; /* guards the rest */
    grpc_call *handle;     /* until the last operation has ended */
    int cancelled;         /* written by C-core */
    int operations;        /* in flight */

    grpc_byte_buffer *incoming; /* written by C-core while is_reading */
    grpc_byte_buffer *request;  /* a unary method's message, until the end of stream proves it */
    bool is_reading;
    bool has_message; /* `incoming` waits for dispatch */
    bool has_half_close;
    bool reads_ended; /* the half-close has been seen */
    bool has_closed;
    bool is_dispatching;
    bool is_closed; /* `closed` has been called */

    struct outgoing *first, *last; /* the first is being written while is_writing */
    size_t pending_bytes;
    bool is_writing;
    bool headers_sent;
    bool is_finishing;
    bool status_sent;
    enum rpc_code code;
    grpc_slice status_text;
    grpc_metadata details; /* key empty: none */
    bool has_details;
};

/* Operations. All with the mutex held. */

static bool call_begin(struct rpc_call *call, const grpc_op *ops, size_t count,
                       struct rpc_event *event)
{
    grpc_call_error refused;

    call->operations++;
    atomic_store(&event->is_armed, true);
    refused = grpc_call_start_batch(call->handle, ops, count, event, NULL);
    if (refused == GRPC_CALL_OK)
        return true;
    call->operations--;
    log_error("grpc refuses an operation: %s", grpc_call_error_to_string(refused));
    grpc_call_cancel(call->handle, NULL);
    return false;
}

static void call_read(struct rpc_call *call)
{
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
                        .data.recv_message.recv_message = &call->incoming};

    call->incoming = NULL;
    call->is_reading = call_begin(call, &op, 1, &call->read_event);
}

static grpc_op status_op(struct rpc_call *call)
{
    grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};

    op.data.send_status_from_server.status = (grpc_status_code)call->code;
    op.data.send_status_from_server.status_details = &call->status_text;
    if (call->has_details) {
        op.data.send_status_from_server.trailing_metadata_count = 1;
        op.data.send_status_from_server.trailing_metadata = &call->details;
    }
    return op;
}

/* Start the next write if there is one and none is in flight. The status travels with the last
 * message, the headers with the first write. */
static void call_write(struct rpc_call *call)
{
    grpc_op ops[3] = {{0}};
    size_t count = 0;

    if (call->is_writing || call->has_closed || call->status_sent)
        return;
    if (call->first == NULL && !call->is_finishing)
        return;
    if (!call->headers_sent)
        ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (call->first != NULL) {
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = call->first->message;
    }
    if (call->is_finishing && call->first == call->last)
        ops[count++] = status_op(call);
    call->is_writing = call_begin(call, ops, count, &call->write_event);
    call->headers_sent = true;
    call->status_sent = call->is_finishing && call->first == call->last;
}

static void outgoing_pop(struct rpc_call *call)
{
    struct outgoing *gone = call->first;

    call->first = gone->next;
    if (call->first == NULL)
        call->last = NULL;
    call->pending_bytes -= gone->bytes;
    atomic_fetch_sub(&call->pending_messages, 1);
    grpc_byte_buffer_destroy(gone->message);
    free(gone);
}

static void call_finish(struct rpc_call *call, enum rpc_code code, const char *message,
                        const void *details, size_t details_bytes)
{
    size_t text_bytes = strlen(message);

    if (atomic_load(&call->is_over))
        return;
    if (text_bytes > STATUS_TEXT_BYTES_MAX)
        text_bytes = utf8_whole_bytes(message, STATUS_TEXT_BYTES_MAX);
    call->code = code;
    call->status_text = grpc_slice_from_copied_buffer(message, text_bytes);
    call->has_details = details != NULL && details_bytes <= STATUS_DETAILS_BYTES_MAX;
    if (call->has_details) {
        call->details.key = grpc_slice_from_static_string("grpc-status-details-bin");
        call->details.value = grpc_slice_from_copied_buffer(details, details_bytes);
    }
    call->is_finishing = true;
    atomic_store(&call->is_over, true);
    rpc_server_stalled_renew(call->server, &call->stalled, true, call->pending_bytes);
    call_write(call);
}

/* Dispatch. */

/* Hand one message to the method; takes `message`. Without the mutex. */
static void deliver_message(struct rpc_call *call, grpc_byte_buffer *message)
{
    grpc_byte_buffer_reader reader;
    grpc_slice data;

    if (grpc_byte_buffer_reader_init(&reader, message) == 0) {
        rpc_call_finish(call, RPC_INTERNAL, "the message cannot be read", NULL, 0);
    } else {
        data = grpc_byte_buffer_reader_readall(&reader);
        call->method->message(call, call->method->context, GRPC_SLICE_START_PTR(data),
                              GRPC_SLICE_LENGTH(data));
        grpc_slice_unref(data);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(message);
}

/* Call the callback that is due, if any: messages before half-close before closed, and nothing but
 * `closed` once the call has been finished. Mutex held, released during the callback. */
static bool dispatch_one(struct rpc_call *call)
{
    const struct rpc_method *method = call->method;

    if (call->has_message) {
        grpc_byte_buffer *message = call->incoming;

        call->has_message = false;
        call->incoming = NULL;
        pthread_mutex_unlock(&call->mutex);
        if (atomic_load(&call->is_over))
            grpc_byte_buffer_destroy(message);
        else
            deliver_message(call, message);
    } else if (call->has_half_close) {
        call->has_half_close = false;
        pthread_mutex_unlock(&call->mutex);
        if (method->half_close != NULL && !atomic_load(&call->is_over))
            method->half_close(call, method->context);
    } else if (call->has_closed && !call->is_closed) {
        call->is_closed = true;
        pthread_mutex_unlock(&call->mutex);
        if (method != NULL && method->closed != NULL)
            method->closed(call, method->context);
    } else {
        return false;
    }
    pthread_mutex_lock(&call->mutex);
    return true;
}

static void call_free(struct rpc_call *call)
{
    if (call->is_finishing) {
        grpc_slice_unref(call->status_text);
        if (call->has_details)
            grpc_slice_unref(call->details.value);
    }
    pthread_mutex_destroy(&call->mutex);
    gpr_free(call->peer);
    free(call);
}

/* Run what is due and, when nothing can come any more, let go of C-core's call. Takes the mutex
 * held, leaves it released; the call may be gone afterwards. */
static void call_dispatch(struct rpc_call *call)
{
    bool has_ended;

    if (!call->is_dispatching) {
        call->is_dispatching = true;
        while (dispatch_one(call))
            continue;
        call->is_dispatching = false;
    }
    has_ended =
        call->is_closed && !call->is_dispatching && call->handle != NULL && call->operations == 0;
    if (has_ended) {
        struct rpc_server *server = call->server;

        while (call->first != NULL)
            outgoing_pop(call);
        grpc_byte_buffer_destroy(call->request);
        call->request = NULL;
        rpc_server_stalled_remove(server, &call->stalled);
        grpc_call_unref(call->handle);
        call->handle = NULL;
        pthread_mutex_unlock(&call->mutex);
        rpc_call_drop(call);
        rpc_server_call_ended(server);
        return;
    }
    pthread_mutex_unlock(&call->mutex);
}

/* A unary method's message counts when the client's end follows it. */
static void read_unary(struct rpc_call *call)
{
    if (call->request == NULL && call->incoming != NULL) {
        call->request = call->incoming;
        call_read(call);
    } else if (call->request != NULL && call->incoming == NULL) {
        call->incoming = call->request;
        call->request = NULL;
        call->has_message = true;
        call->has_half_close = true;
        call->reads_ended = true;
    } else {
        grpc_byte_buffer_destroy(call->incoming);
        call->incoming = NULL;
        call_finish(call, RPC_INVALID_ARGUMENT, "this method takes exactly one request message",
                    NULL, 0);
    }
}

static void read_done(void *owner, bool ok)
{
    struct rpc_call *call = owner;

    pthread_mutex_lock(&call->mutex);
    call->operations--;
    call->is_reading = false;
    if (!ok || atomic_load(&call->is_over)) {
        grpc_byte_buffer_destroy(call->incoming);
        call->incoming = NULL;
    } else if (!call->method->client_streams) {
        read_unary(call);
    } else if (call->incoming != NULL) {
        call->has_message = true;
    } else {
        call->has_half_close = true;
        call->reads_ended = true;
    }
    if ((call->has_message || call->has_half_close) && !atomic_load(&call->is_over))
        rpc_server_stalled_remove(call->server, &call->stalled);
    call_dispatch(call);
}

static void write_done(void *owner, bool ok)
{
    struct rpc_call *call = owner;

    pthread_mutex_lock(&call->mutex);
    call->operations--;
    call->is_writing = false;
    if (call->first != NULL)
        outgoing_pop(call);
    if (ok) { /* otherwise the call is broken, and its end is on the way */
        if (call->is_finishing && !call->has_closed)
            rpc_server_stalled_renew(call->server, &call->stalled, true, call->pending_bytes);
        call_write(call);
    }
    call_dispatch(call);
}

static void closed_done(void *owner, bool ok)
{
    struct rpc_call *call = owner;

    (void)ok;
    pthread_mutex_lock(&call->mutex);
    call->operations--;
    call->has_closed = true;
    atomic_store(&call->is_over, true);
    call_dispatch(call);
}

/* Start. */

enum tca_status rpc_call_start(struct rpc_server *server, const struct rpc_method *method,
                               grpc_call *handle, const grpc_call_details *details)
{
    struct rpc_call *call = calloc(1, sizeof(*call));
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

    if (call == NULL)
        return TCA_ERR_NO_MEMORY;
    call->server = server;
    call->method = method;
    call->handle = handle;
    call->stalled.handle = handle;
    call->peer = grpc_call_get_peer(handle);
    call->deadline_ms = rpc_core_monotonic_ms(details->deadline);
    rpc_event_init(&call->closed_event, closed_done, call);
    rpc_event_init(&call->read_event, read_done, call);
    rpc_event_init(&call->write_event, write_done, call);
    atomic_init(&call->references, 1);
    pthread_mutex_init(&call->mutex, NULL);

    pthread_mutex_lock(&call->mutex);
    op.data.recv_close_on_server.cancelled = &call->cancelled;
    if (!call_begin(call, &op, 1, &call->closed_event)) {
        pthread_mutex_unlock(&call->mutex);
        call_free(call);
        return TCA_ERR_COMM;
    }
    rpc_server_stalled_renew(server, &call->stalled, false, 0);
    if (method != NULL)
        call_read(call);
    else
        call_finish(call, RPC_UNIMPLEMENTED, "no such method", NULL, 0);
    pthread_mutex_unlock(&call->mutex);
    return TCA_OK;
}

/* What methods use. */

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    atomic_store(&call->user, user);
}

void *rpc_call_user(const struct rpc_call *call)
{
    return atomic_load(&call->user);
}

struct rpc_call *rpc_call_hold(struct rpc_call *call)
{
    atomic_fetch_add(&call->references, 1);
    return call;
}

void rpc_call_drop(struct rpc_call *call)
{
    if (atomic_fetch_sub(&call->references, 1) == 1)
        call_free(call);
}

void rpc_call_read_next(struct rpc_call *call)
{
    pthread_mutex_lock(&call->mutex);
    if (!atomic_load(&call->is_over) && call->method->client_streams && !call->is_reading &&
        !call->has_message && !call->reads_ended)
        call_read(call);
    pthread_mutex_unlock(&call->mutex);
}

static enum tca_status outgoing_push(struct rpc_call *call, const void *data, size_t bytes)
{
    struct outgoing *outgoing = calloc(1, sizeof(*outgoing));
    grpc_slice slice;

    if (outgoing == NULL)
        return TCA_ERR_NO_MEMORY;
    slice = grpc_slice_from_copied_buffer(data, bytes);
    outgoing->message = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    outgoing->bytes = bytes;
    if (call->last != NULL)
        call->last->next = outgoing;
    else
        call->first = outgoing;
    call->last = outgoing;
    call->pending_bytes += bytes;
    atomic_fetch_add(&call->pending_messages, 1);
    return TCA_OK;
}

enum tca_status rpc_call_send(struct rpc_call *call, const void *data, size_t bytes)
{
    enum tca_status status;

    if (bytes > RPC_MESSAGE_BYTES_MAX)
        return TCA_ERR_RANGE;
    pthread_mutex_lock(&call->mutex);
    if (atomic_load(&call->is_over))
        status = TCA_ERR_CANCELLED;
    else if (atomic_load(&call->pending_messages) >= PENDING_MESSAGES_MAX ||
             call->pending_bytes > RPC_MESSAGE_BYTES_MAX - bytes)
        status = TCA_ERR_BUSY;
    else
        status = outgoing_push(call, data, bytes);
    if (status == TCA_OK)
        call_write(call);
    pthread_mutex_unlock(&call->mutex);
    return status;
}

size_t rpc_call_pending(const struct rpc_call *call)
{
    return atomic_load(&call->pending_messages);
}

void rpc_call_finish(struct rpc_call *call, enum rpc_code code, const char *message,
                     const void *details, size_t details_bytes)
{
    pthread_mutex_lock(&call->mutex);
    call_finish(call, code, message, details, details_bytes);
    pthread_mutex_unlock(&call->mutex);
}

bool rpc_call_is_over(const struct rpc_call *call)
{
    return atomic_load(&call->is_over) || clock_monotonic_ms() >= call->deadline_ms;
}

int64_t rpc_call_deadline_ms(const struct rpc_call *call)
{
    return call->deadline_ms;
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    return call->peer;
}
