/* The fields of a protobuf-c message by their descriptors: singular, repeated and oneof members
 * all as an array of values. Private to proto/. */
#ifndef PROTO_MESSAGE_FIELD_H
#define PROTO_MESSAGE_FIELD_H

#include <protobuf-c/protobuf-c.h>

#include <stddef.h>

/* Values present: a singular scalar always counts 1, a sub-message or a oneof's member only when
 * it is set. */
size_t message_field_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* Where value `index` lies, in the C type protobuf-c gives the field: for a sub-message that is a
 * pointer to it. */
const void *message_field_value(const ProtobufCMessage *message,
                                const ProtobufCFieldDescriptor *field, size_t index);

#endif
