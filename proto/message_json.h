/* Protobuf's JSON mapping of a protobuf-c message, with the names of the .proto file. */
#ifndef PROTO_MESSAGE_JSON_H
#define PROTO_MESSAGE_JSON_H

#include "base/bytes.h"

/* Append a message as one JSON object, without a newline: 64-bit integers are strings, bytes
 * base64, texts strings, enums by name (a number unknown to the .proto stays a number), Timestamp
 * RFC 3339, floats the shortest form that reads back the same. Zero fields are left out, a oneof's
 * set member never. Maps are not handled: the API has none. Invalid UTF-8 becomes U+FFFD.
 * TCA_ERR_RANGE: a Timestamp outside the years 1 to 9999. */
enum tca_status message_print_json(const void *message, struct bytes *out);

#endif
