/* protobuf-c messages: from wire bytes, to wire bytes, and the checks protobuf-c does not make.
 *
 * Generated headers: "tca.pb-c.h", "control.pb-c.h", <grpc/health/v1/health.pb-c.h>,
 * <google/rpc/status.pb-c.h> ... In them every text of a .proto file is a ProtobufCBinaryData, with
 * its length and without a NUL behind it. */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

#include "base/bytes.h"
#include "base/error.h"

#include <protobuf-c/protobuf-c.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Unpack a message of `type`, which the caller frees with message_free; its texts are checked.
 * TCA_ERR_INVALID: not such a message, or a text is not UTF-8 (error starts with the field's dotted
 * name and ": "). TCA_ERR_NO_MEMORY: the message expands to more than 4 times its wire size plus
 * 64 KiB. *message_out (a pointer to the generated struct) is written only on success. */
enum tca_status message_unpack(const ProtobufCMessageDescriptor *type, const void *data,
                               size_t bytes, void **message_out, struct tca_error *error);
void message_free(void *message); /* of message_unpack; NULL is a no-op */

/* Append the wire form of any generated struct. */
enum tca_status message_pack(const void *message, struct bytes *out);

/* Borrow a text for a message's field. */
ProtobufCBinaryData message_text(const char *text);
ProtobufCBinaryData message_text_bytes(const void *text, size_t bytes);

/* TCA_ERR_INVALID, naming field, length and range, unless min <= bytes <= max. */
enum tca_status message_check_bytes(const char *field, size_t bytes, size_t min, size_t max,
                                    struct tca_error *error);

/* Is this bytes field of a protobuf-c message a text in the .proto file? */
bool message_field_is_text(const ProtobufCMessageDescriptor *type,
                           const ProtobufCFieldDescriptor *field);

#endif
