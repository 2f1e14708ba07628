#include "coordinator/reply.h"

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "proto/message.h"

#include <string.h>

enum { RETRY_SECONDS = 2 };

enum tca_status reply_send(struct rpc_call *call, const ProtobufCMessage *message)
{
    struct bytes data = {0};
    enum tca_status status = message_pack(message, &data);

    if (status == TCA_OK)
        status = rpc_call_send(call, data.data, data.size);
    bytes_free(&data);
    return status;
}

void reply_once(struct rpc_call *call, const ProtobufCMessage *message)
{
    const enum tca_status status = reply_send(call, message);

    if (status == TCA_OK)
        reply_ok(call);
    else if (status == TCA_ERR_RANGE)
        reply_code(call, RPC_RESOURCE_EXHAUSTED, "the response would be over 4 MiB");
    else if (status != TCA_ERR_CANCELLED)
        reply_code(call, rpc_code_from_status(status), tca_status_text(status));
}

void reply_ok(struct rpc_call *call)
{
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
}

/* Wrap one detail message, or none. */
static enum tca_status pack_details(enum rpc_code code, const char *text, const char *type_url,
                                    const ProtobufCMessage *detail, struct bytes *out)
{
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Google__Protobuf__Any *list[1] = {&any};
    struct bytes value = {0};
    enum tca_status packed = TCA_OK;

    status.code = code;
    status.message = message_text(text);
    if (detail != NULL) {
        packed = message_pack(detail, &value);
        any.type_url = message_text(type_url);
        any.value = (ProtobufCBinaryData){.len = value.size, .data = value.data};
        status.n_details = 1;
        status.details = list;
    }
    if (packed == TCA_OK)
        packed = message_pack(&status, out);
    bytes_free(&value);
    return packed;
}

static enum tca_status pack_bad_request(const char *text, struct bytes *out)
{
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation violation =
        GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
    Google__Rpc__BadRequest__FieldViolation *list[1] = {&violation};
    const char *colon = strstr(text, ": ");

    if (colon != NULL) {
        violation.field = message_text_bytes(text, (size_t)(colon - text));
        violation.description = message_text(colon + 2);
    } else {
        violation.description = message_text(text);
    }
    bad.n_field_violations = 1;
    bad.field_violations = list;
    return pack_details(RPC_INVALID_ARGUMENT, text, "type.googleapis.com/google.rpc.BadRequest",
                        &bad.base, out);
}

static enum tca_status pack_retry(enum rpc_code code, const char *text, struct bytes *out)
{
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;

    delay.seconds = RETRY_SECONDS;
    retry.retry_delay = &delay;
    return pack_details(code, text, "type.googleapis.com/google.rpc.RetryInfo", &retry.base, out);
}

void reply_code(struct rpc_call *call, enum rpc_code code, const char *text)
{
    struct bytes details = {0};
    enum tca_status status;

    if (code == RPC_INVALID_ARGUMENT)
        status = pack_bad_request(text, &details);
    else if (code == RPC_UNAVAILABLE || code == RPC_RESOURCE_EXHAUSTED)
        status = pack_retry(code, text, &details);
    else
        status = pack_details(code, text, NULL, NULL, &details);
    /* Without memory for the details the code and the text still tell. */
    rpc_call_finish(call, code, text, status == TCA_OK ? details.data : NULL, details.size);
    bytes_free(&details);
}

void reply_error(struct rpc_call *call, enum tca_status status, const struct tca_error *error)
{
    reply_code(call, rpc_code_from_status(status),
               error->text[0] != '\0' ? error->text : tca_status_text(status));
}
