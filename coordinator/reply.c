#include "coordinator/reply.h"

enum { RETRY_MS = 2000 };

void reply_ok(struct rpc_call *call)
{
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
}

void reply_code(struct rpc_call *call, enum rpc_code code, const char *text)
{
    const bool is_temporary = code == RPC_UNAVAILABLE || code == RPC_RESOURCE_EXHAUSTED;

    rpc_call_refuse(call, code, text, is_temporary ? RETRY_MS : 0);
}

void reply_error(struct rpc_call *call, enum tca_status status, const struct tca_error *error)
{
    reply_code(call, rpc_code_from_status(status),
               error->text[0] != '\0' ? error->text : tca_status_text(status));
}
