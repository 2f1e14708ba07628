#include "proto/reply.h"

#include "proto/message.h"

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <string.h>

enum tca_status rpc_call_send_message(struct rpc_call *call, const void *message)
{
    struct bytes packed = {0};
    enum tca_status status = message_pack(message, &packed);

    if (status == TCA_OK)
        status = rpc_call_send(call, packed.data, packed.size);
    bytes_free(&packed);
    return status;
}

void rpc_call_reply(struct rpc_call *call, const void *message)
{
    const enum tca_status status = rpc_call_send_message(call, message);

    if (status == TCA_ERR_RANGE)
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "the response would be over 4 MiB", NULL, 0);
    else
        rpc_call_finish(call, rpc_code_from_status(status),
                        status == TCA_OK ? "" : tca_status_text(status), NULL, 0);
}

/* Append a serialised google.rpc.Status with one detail: code and message must be those of the
 * call's end. */
static enum tca_status details_pack(enum rpc_code code, const char *message, const char *type_url,
                                    const void *detail, struct bytes *details)
{
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Google__Protobuf__Any *anys[1] = {&any};
    struct bytes packed = {0};
    enum tca_status result = message_pack(detail, &packed);

    any.type_url = message_text(type_url);
    any.value = message_text_bytes(packed.data, packed.size);
    status.code = (int32_t)code;
    status.message = message_text(message);
    status.n_details = 1;
    status.details = anys;
    if (result == TCA_OK)
        result = message_pack(&status, details);
    bytes_free(&packed);
    return result;
}

/* field: so many bytes of the message, before ": "; or none. */
static enum tca_status details_bad_request(enum rpc_code code, const char *message, size_t field,
                                           struct bytes *details)
{
    Google__Rpc__BadRequest request = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation violation =
        GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
    Google__Rpc__BadRequest__FieldViolation *violations[1] = {&violation};

    violation.field = message_text_bytes(message, field);
    violation.description = message_text(field > 0 ? message + field + 2 : message);
    request.n_field_violations = 1;
    request.field_violations = violations;
    return details_pack(code, message, "type.googleapis.com/google.rpc.BadRequest", &request,
                        details);
}

static enum tca_status details_retry_info(enum rpc_code code, const char *message, int64_t retry_ms,
                                          struct bytes *details)
{
    Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;

    delay.seconds = retry_ms / 1000;
    delay.nanos = (int32_t)(retry_ms % 1000) * 1000000;
    info.retry_delay = &delay;
    return details_pack(code, message, "type.googleapis.com/google.rpc.RetryInfo", &info, details);
}

/* Bytes of the field's name in "name: text", 0 when the message does not start with one. */
static size_t field_bytes(const char *message)
{
    const size_t bytes = strspn(message, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789_.[]");

    return strncmp(message + bytes, ": ", 2) == 0 ? bytes : 0;
}

void rpc_call_refuse(struct rpc_call *call, enum rpc_code code, const char *message,
                     int64_t retry_ms)
{
    const size_t field = field_bytes(message);
    enum tca_status status = TCA_ERR_NOT_FOUND;
    struct bytes details = {0};

    if (retry_ms > 0)
        status = details_retry_info(code, message, retry_ms, &details);
    else if (code == RPC_INVALID_ARGUMENT || (code == RPC_OUT_OF_RANGE && field > 0))
        status = details_bad_request(code, message, field, &details);
    /* Without memory for the details, the code and the message must do. */
    rpc_call_finish(call, code, message, status == TCA_OK ? details.data : NULL,
                    status == TCA_OK ? details.size : 0);
    bytes_free(&details);
}
