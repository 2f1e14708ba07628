/* Blocking gRPC client over C-core: one thread sends, one (the same or another) receives. */
#ifndef PROTO_RPC_CLIENT_H
#define PROTO_RPC_CLIENT_H

#include "base/bytes.h"
#include "base/error.h"
#include "proto/rpc.h"

#include <stddef.h>
#include <stdint.h>

struct rpc_channel;
struct rpc_stream;

enum tca_status rpc_channel_open(const char *address, struct rpc_channel **channel_out,
                                 struct tca_error *error);
void rpc_channel_close(struct rpc_channel *channel); /* after its streams; NULL is a no-op */

/* Start a call of any kind. timeout_ms: the call's deadline, 0 for none. */
enum tca_status rpc_stream_open(struct rpc_channel *channel, const char *path, int64_t timeout_ms,
                                struct rpc_stream **stream_out, struct tca_error *error);
/* Send one message; waits until it is on its way. TCA_ERR_CANCELLED: the call is over, finish. */
enum tca_status rpc_stream_send(struct rpc_stream *stream, const void *data, size_t bytes);
enum tca_status rpc_stream_send_end(struct rpc_stream *stream);
/* Wait for the next message; replaces *message. TCA_ERR_NOT_FOUND: there are no more, finish.
 * TCA_ERR_DEADLINE: none came within timeout_ms (< 0: no limit); call again. */
enum tca_status rpc_stream_receive(struct rpc_stream *stream, int64_t timeout_ms,
                                   struct bytes *message);
/* Cancel from any thread; blocked calls return. */
void rpc_stream_cancel(struct rpc_stream *stream);
/* The call's final status; waits for it. error takes the server's message; details (may be NULL)
 * the bytes of grpc-status-details-bin. */
enum rpc_code rpc_stream_finish(struct rpc_stream *stream, struct tca_error *error,
                                struct bytes *details);
void rpc_stream_close(struct rpc_stream *stream); /* cancels what still runs; NULL is a no-op */

#endif
