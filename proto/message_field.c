#include "proto/message_field.h"

#include <stdint.h>

static size_t value_bytes(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(uint32_t);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

static const char *member(const ProtobufCMessage *message, unsigned offset)
{
    return (const char *)message + offset;
}

size_t message_field_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *value = member(message, field->offset);

    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)(const void *)member(message, field->quantifier_offset);
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
        *(const uint32_t *)(const void *)member(message, field->quantifier_offset) != field->id)
        return 0;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)(const void *)value != NULL;
    return 1;
}

const void *message_field_value(const ProtobufCMessage *message,
                                const ProtobufCFieldDescriptor *field, size_t index)
{
    const char *value = member(message, field->offset);

    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        value = *(const char *const *)(const void *)value + index * value_bytes(field->type);
    return value;
}
