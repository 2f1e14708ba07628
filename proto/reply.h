/* What a method's callbacks answer with: messages, or a refusal with google.rpc details. */
#ifndef PROTO_REPLY_H
#define PROTO_REPLY_H

#include "proto/rpc_server.h"

/* Queue a generated message; errors as rpc_call_send. TCA_ERR_RANGE: over 4 MiB, nothing is sent.
 */
enum tca_status rpc_call_send_message(struct rpc_call *call, const void *message);

/* A unary method's answer: the message, then OK. When it cannot be queued the call ends with that
 * failure: RESOURCE_EXHAUSTED when it is too big. */
void rpc_call_reply(struct rpc_call *call, const void *message);

/* End the call with `code` and `message`, and details. retry_ms > 0: google.rpc.RetryInfo. Else,
 * with INVALID_ARGUMENT, and with OUT_OF_RANGE and a message "field.name: what is wrong":
 * google.rpc.BadRequest, about that field where there is one. */
void rpc_call_refuse(struct rpc_call *call, enum rpc_code code, const char *message,
                     int64_t retry_ms);

#endif
