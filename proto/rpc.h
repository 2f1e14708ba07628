/* gRPC status codes and the limits both ends of every connection of this project share. */
#ifndef PROTO_RPC_H
#define PROTO_RPC_H

#include "base/error.h"

enum rpc_code {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16,
};

enum { RPC_MESSAGE_BYTES_MAX = 4 * 1024 * 1024 };

/* TCA_ERR_INVALID, which begins with `name`, unless it is "HOST:PORT" with a port of 0 to 65535, an
 * IPv6 host in brackets. NULL is "". C-core takes more than that and makes port 443 of it. */
enum tca_status rpc_check_address(const char *name, const char *address, struct tca_error *error);

const char *rpc_code_name(enum rpc_code code); /* "INVALID_ARGUMENT"; never NULL */
enum rpc_code rpc_code_from_status(enum tca_status status);

#endif
