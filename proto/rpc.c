#include "proto/rpc.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_address(const char *address)
{
    const char *colon = strrchr(address, ':');
    const size_t host = colon == NULL ? 0 : (size_t)(colon - address);
    const size_t digits = colon == NULL ? 0 : strspn(colon + 1, "0123456789");

    if (host == 0 || digits == 0 || digits > 5 || colon[1 + digits] != '\0' ||
        strtol(colon + 1, NULL, 10) > 65535)
        return false;
    return memchr(address, ':', host) == NULL || (address[0] == '[' && colon[-1] == ']');
}

enum tca_status rpc_check_address(const char *name, const char *address, struct tca_error *error)
{
    if (address == NULL)
        address = "";
    if (is_address(address))
        return TCA_OK;
    return tca_fail(error, TCA_ERR_INVALID,
                    "%s: value \"%.80s\", allowed: HOST:PORT, the port from 0 to 65535, an IPv6 "
                    "host in brackets",
                    name, address);
}

const char *rpc_code_name(enum rpc_code code)
{
    switch (code) {
    case RPC_OK:
        return "OK";
    case RPC_CANCELLED:
        return "CANCELLED";
    case RPC_UNKNOWN:
        return "UNKNOWN";
    case RPC_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case RPC_DEADLINE_EXCEEDED:
        return "DEADLINE_EXCEEDED";
    case RPC_NOT_FOUND:
        return "NOT_FOUND";
    case RPC_ALREADY_EXISTS:
        return "ALREADY_EXISTS";
    case RPC_PERMISSION_DENIED:
        return "PERMISSION_DENIED";
    case RPC_RESOURCE_EXHAUSTED:
        return "RESOURCE_EXHAUSTED";
    case RPC_FAILED_PRECONDITION:
        return "FAILED_PRECONDITION";
    case RPC_ABORTED:
        return "ABORTED";
    case RPC_OUT_OF_RANGE:
        return "OUT_OF_RANGE";
    case RPC_UNIMPLEMENTED:
        return "UNIMPLEMENTED";
    case RPC_INTERNAL:
        return "INTERNAL";
    case RPC_UNAVAILABLE:
        return "UNAVAILABLE";
    case RPC_DATA_LOSS:
        return "DATA_LOSS";
    case RPC_UNAUTHENTICATED:
        return "UNAUTHENTICATED";
    }
    return "UNKNOWN"; /* a peer may send any number */
}

enum rpc_code rpc_code_from_status(enum tca_status status)
{
    switch (status) {
    case TCA_OK:
        return RPC_OK;
    case TCA_ERR_INVALID:
        return RPC_INVALID_ARGUMENT;
    case TCA_ERR_NO_MEMORY:
    case TCA_ERR_BUSY:
        return RPC_RESOURCE_EXHAUSTED;
    case TCA_ERR_DEVICE:
    case TCA_ERR_IO:
        return RPC_INTERNAL;
    case TCA_ERR_COMM:
    case TCA_ERR_UNAVAILABLE:
        return RPC_UNAVAILABLE;
    case TCA_ERR_UNSUPPORTED:
        return RPC_UNIMPLEMENTED;
    case TCA_ERR_NOT_FOUND:
        return RPC_NOT_FOUND;
    case TCA_ERR_EXISTS:
        return RPC_ALREADY_EXISTS;
    case TCA_ERR_PRECONDITION:
        return RPC_FAILED_PRECONDITION;
    case TCA_ERR_RANGE:
        return RPC_OUT_OF_RANGE;
    case TCA_ERR_ABORTED:
        return RPC_ABORTED;
    case TCA_ERR_CANCELLED:
        return RPC_CANCELLED;
    case TCA_ERR_DEADLINE:
        return RPC_DEADLINE_EXCEEDED;
    case TCA_ERR_DATA_LOSS:
        return RPC_DATA_LOSS;
    case TCA_ERR_UNAUTHENTICATED:
        return RPC_UNAUTHENTICATED;
    case TCA_ERR_DENIED:
        return RPC_PERMISSION_DENIED;
    }
    return RPC_INTERNAL;
}
