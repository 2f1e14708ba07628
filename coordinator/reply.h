/* How calls end: OK, or refused as the API promises (docs/api.md, status codes). Any thread. */
#ifndef COORDINATOR_REPLY_H
#define COORDINATOR_REPLY_H

#include "base/error.h"
#include "proto/reply.h"

void reply_ok(struct rpc_call *call);
/* As rpc_call_refuse. UNAVAILABLE and RESOURCE_EXHAUSTED ask for another try, in seconds. */
void reply_code(struct rpc_call *call, enum rpc_code code, const char *text);
void reply_error(struct rpc_call *call, enum tca_status status, const struct tca_error *error);

#endif
