/* Answering calls: messages in and out, and failures with google.rpc details. Any thread. */
#ifndef COORDINATOR_REPLY_H
#define COORDINATOR_REPLY_H

#include "base/error.h"
#include "proto/rpc.h"
#include "proto/rpc_server.h"
#include "tca.pb-c.h"

/* Send one message. As rpc_call_send; TCA_ERR_RANGE: over 4 MiB, nothing is sent. */
enum tca_status reply_send(struct rpc_call *call, const ProtobufCMessage *message);
/* Send the one message of a unary method and finish OK, or
 * RESOURCE_EXHAUSTED when it is too big. */
void reply_once(struct rpc_call *call, const ProtobufCMessage *message);
void reply_ok(struct rpc_call *call);
/* Finish with a failure. INVALID_ARGUMENT carries google.rpc.BadRequest (the text begins with the
 * field's name and a colon), UNAVAILABLE and RESOURCE_EXHAUSTED carry google.rpc.RetryInfo. */
void reply_code(struct rpc_call *call, enum rpc_code code, const char *text);
void reply_error(struct rpc_call *call, enum tca_status status, const struct tca_error *error);

#endif
