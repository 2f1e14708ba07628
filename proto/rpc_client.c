/* Each call has its own completion queue, from which a blocked thread plucks the tag it waits for:
 * C-core lets several threads do so at once. Three tags: the call's status, whose operations are
 * started with the call, one message to receive, one to send. */
#include "proto/rpc_client.h"

#include "proto/rpc_core.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct rpc_channel {
    grpc_channel *handle;
};

struct rpc_stream {
    grpc_call *handle;
    grpc_completion_queue *queue;
    grpc_metadata_array headers;
    grpc_metadata_array trailers;
    grpc_status_code code;
    grpc_slice status_text;
    grpc_byte_buffer *incoming; /* written by C-core while is_receiving */
    bool is_receiving;          /* its tag has not been plucked yet */
    bool is_finished;           /* the status's tag has been plucked */
    char status_tag, receive_tag, send_tag;
};

enum tca_status rpc_channel_open(const char *address, struct rpc_channel **channel_out,
                                 struct tca_error *error)
{
    struct rpc_channel *channel = calloc(1, sizeof(*channel));

    if (channel == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a connection");
    rpc_core_start();
    channel->handle = rpc_core_channel_create(address);
    *channel_out = channel;
    return TCA_OK;
}

void rpc_channel_close(struct rpc_channel *channel)
{
    if (channel == NULL)
        return;
    grpc_channel_destroy(channel->handle);
    free(channel);
    rpc_core_stop();
}

/* Wait for a tag. TCA_ERR_DEADLINE: not yet; TCA_ERR_CANCELLED: the operation failed. */
static enum tca_status stream_wait(struct rpc_stream *stream, void *tag, int64_t timeout_ms)
{
    const grpc_event event =
        grpc_completion_queue_pluck(stream->queue, tag, rpc_core_deadline(timeout_ms), NULL);

    if (event.type != GRPC_OP_COMPLETE)
        return TCA_ERR_DEADLINE;
    return event.success != 0 ? TCA_OK : TCA_ERR_CANCELLED;
}

/* Started with the call, ends with it: its headers and its status. */
static grpc_call_error stream_start(struct rpc_stream *stream)
{
    grpc_op ops[3] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_RECV_INITIAL_METADATA},
                      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT}};

    ops[1].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
    ops[2].data.recv_status_on_client.trailing_metadata = &stream->trailers;
    ops[2].data.recv_status_on_client.status = &stream->code;
    ops[2].data.recv_status_on_client.status_details = &stream->status_text;
    return grpc_call_start_batch(stream->handle, ops, 3, &stream->status_tag, NULL);
}

static void stream_free(struct rpc_stream *stream)
{
    grpc_call_unref(stream->handle);
    grpc_completion_queue_shutdown(stream->queue);
    grpc_completion_queue_destroy(stream->queue);
    grpc_metadata_array_destroy(&stream->headers);
    grpc_metadata_array_destroy(&stream->trailers);
    grpc_slice_unref(stream->status_text);
    free(stream);
}

enum tca_status rpc_stream_open(struct rpc_channel *channel, const char *path, int64_t timeout_ms,
                                struct rpc_stream **stream_out, struct tca_error *error)
{
    struct rpc_stream *stream = calloc(1, sizeof(*stream));
    const grpc_slice method = grpc_slice_from_copied_string(path);
    grpc_call_error refused;

    if (stream == NULL) {
        grpc_slice_unref(method);
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a call");
    }
    grpc_metadata_array_init(&stream->headers);
    grpc_metadata_array_init(&stream->trailers);
    stream->status_text = grpc_empty_slice();
    stream->queue = grpc_completion_queue_create_for_pluck(NULL);
    stream->handle = grpc_channel_create_call(
        channel->handle, NULL, GRPC_PROPAGATE_DEFAULTS, stream->queue, method, NULL,
        rpc_core_deadline(timeout_ms > 0 ? timeout_ms : -1), NULL);
    grpc_slice_unref(method);
    refused = stream_start(stream);
    if (refused != GRPC_CALL_OK) {
        stream_free(stream);
        return tca_fail(error, TCA_ERR_COMM, "cannot call %s: %s", path,
                        grpc_call_error_to_string(refused));
    }
    *stream_out = stream;
    return TCA_OK;
}

static enum tca_status stream_send_op(struct rpc_stream *stream, const grpc_op *op)
{
    if (grpc_call_start_batch(stream->handle, op, 1, &stream->send_tag, NULL) != GRPC_CALL_OK)
        return TCA_ERR_CANCELLED;
    return stream_wait(stream, &stream->send_tag, -1);
}

enum tca_status rpc_stream_send(struct rpc_stream *stream, const void *data, size_t bytes)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(data, bytes);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
    const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = message};
    const enum tca_status status = stream_send_op(stream, &op);

    grpc_byte_buffer_destroy(message);
    grpc_slice_unref(slice);
    return status;
}

enum tca_status rpc_stream_send_end(struct rpc_stream *stream)
{
    const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

    return stream_send_op(stream, &op);
}

/* Wait for the next message as C-core has it; *message_out is NULL when there are no more. */
static enum tca_status stream_next(struct rpc_stream *stream, int64_t timeout_ms,
                                   grpc_byte_buffer **message_out)
{
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
                        .data.recv_message.recv_message = &stream->incoming};
    enum tca_status status;

    *message_out = NULL;
    if (!stream->is_receiving) {
        stream->incoming = NULL;
        if (grpc_call_start_batch(stream->handle, &op, 1, &stream->receive_tag, NULL) !=
            GRPC_CALL_OK)
            return TCA_OK;
        stream->is_receiving = true;
    }
    status = stream_wait(stream, &stream->receive_tag, timeout_ms);
    if (status == TCA_ERR_DEADLINE)
        return status;
    stream->is_receiving = false;
    *message_out = stream->incoming; /* NULL when the operation failed */
    stream->incoming = NULL;
    return TCA_OK;
}

enum tca_status rpc_stream_receive(struct rpc_stream *stream, int64_t timeout_ms,
                                   struct bytes *message)
{
    grpc_byte_buffer *incoming;
    grpc_byte_buffer_reader reader;
    grpc_slice data;
    enum tca_status status;

    bytes_clear(message);
    TCA_TRY(stream_next(stream, timeout_ms, &incoming));
    if (incoming == NULL)
        return TCA_ERR_NOT_FOUND;
    if (grpc_byte_buffer_reader_init(&reader, incoming) == 0) {
        grpc_byte_buffer_destroy(incoming);
        return TCA_ERR_COMM;
    }
    data = grpc_byte_buffer_reader_readall(&reader);
    status = bytes_append(message, GRPC_SLICE_START_PTR(data), GRPC_SLICE_LENGTH(data));
    grpc_slice_unref(data);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(incoming);
    return status;
}

void rpc_stream_cancel(struct rpc_stream *stream)
{
    grpc_call_cancel(stream->handle, NULL);
}

/* The status comes only after every message: take and drop those nobody received. */
static void stream_drain(struct rpc_stream *stream)
{
    grpc_byte_buffer *incoming;

    do {
        stream_next(stream, -1, &incoming);
        grpc_byte_buffer_destroy(incoming);
    } while (incoming != NULL);
    if (!stream->is_finished)
        stream_wait(stream, &stream->status_tag, -1);
    stream->is_finished = true;
}

enum rpc_code rpc_stream_finish(struct rpc_stream *stream, struct tca_error *error,
                                struct bytes *details)
{
    stream_drain(stream);
    tca_fail(error, TCA_OK, "%.*s", (int)GRPC_SLICE_LENGTH(stream->status_text),
             (const char *)GRPC_SLICE_START_PTR(stream->status_text));
    if (details != NULL)
        bytes_clear(details);
    for (size_t i = 0; details != NULL && i < stream->trailers.count; i++) {
        const grpc_metadata *trailer = &stream->trailers.metadata[i];

        if (grpc_slice_str_cmp(trailer->key, "grpc-status-details-bin") == 0 &&
            bytes_append(details, GRPC_SLICE_START_PTR(trailer->value),
                         GRPC_SLICE_LENGTH(trailer->value)) != TCA_OK)
            bytes_clear(details);
    }
    return (enum rpc_code)stream->code;
}

void rpc_stream_close(struct rpc_stream *stream)
{
    if (stream == NULL)
        return;
    if (!stream->is_finished) {
        rpc_stream_cancel(stream);
        stream_drain(stream);
    }
    stream_free(stream);
}
