#include "proto/message.h"

#include "base/utf8.h"
#include "proto/message_field.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

enum { EXPANSION_MAX = 4, EXPANSION_FREE_BYTES = 64 * 1024 };

static const struct {
    const char *message;
    const char *field;
} text_fields[] = {
#include "text_fields.inc"
};

bool message_field_is_text(const ProtobufCMessageDescriptor *type,
                           const ProtobufCFieldDescriptor *field)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return true;
    if (field->type != PROTOBUF_C_TYPE_BYTES)
        return false;
    for (size_t i = 0; i < sizeof(text_fields) / sizeof(text_fields[0]); i++)
        if (strcmp(text_fields[i].message, type->name) == 0 &&
            strcmp(text_fields[i].field, field->name) == 0)
            return true;
    return false;
}

/* Checking texts. */

/* Where a check is: each frame lies on the stack of the check of its message. */
struct place {
    const struct place *above;
    const ProtobufCFieldDescriptor *field;
    size_t index;
};

static void place_print(const struct place *place, struct tca_error *name)
{
    struct tca_error above = {""};

    if (place->above != NULL)
        place_print(place->above, &above);
    if (place->field->label == PROTOBUF_C_LABEL_REPEATED)
        tca_fail(name, TCA_OK, "%.200s%s%s[%zu]", above.text, place->above != NULL ? "." : "",
                 place->field->name, place->index);
    else
        tca_fail(name, TCA_OK, "%.200s%s%s", above.text, place->above != NULL ? "." : "",
                 place->field->name);
}

static enum tca_status check_text(const ProtobufCBinaryData *text, const struct place *place,
                                  struct tca_error *error)
{
    struct tca_error name;
    size_t at = 0;

    if (utf8_is_valid((const char *)text->data, text->len))
        return TCA_OK;
    while (utf8_character_bytes((const char *)text->data + at, text->len - at) > 0)
        at += utf8_character_bytes((const char *)text->data + at, text->len - at);
    place_print(place, &name);
    return tca_fail(error, TCA_ERR_INVALID, "%s: not valid UTF-8 at byte %zu of %zu", name.text, at,
                    text->len);
}

static enum tca_status check_message(const ProtobufCMessage *message, const struct place *above,
                                     struct tca_error *error)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        struct place place = {.above = above, .field = field};
        const bool is_text =
            field->type == PROTOBUF_C_TYPE_BYTES && message_field_is_text(type, field);

        if (!is_text && field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        for (size_t count = message_field_count(message, field); place.index < count;
             place.index++) {
            const void *value = message_field_value(message, field, place.index);

            TCA_TRY(is_text ? check_text(value, &place, error)
                            : check_message(*(ProtobufCMessage *const *)value, &place, error));
        }
    }
    return TCA_OK;
}

/* Unpacking within a budget. */

struct budget {
    size_t left;
    bool is_spent;
};

static void *budget_alloc(void *context, size_t bytes)
{
    struct budget *budget = context;
    void *memory;
    size_t real;

    if (bytes > budget->left) {
        budget->is_spent = true;
        return NULL;
    }
    memory = malloc(bytes);
    if (memory == NULL)
        return NULL;
    real = malloc_usable_size(memory);
    budget->left -= real < budget->left ? real : budget->left;
    return memory;
}

static void budget_free(void *context, void *memory)
{
    struct budget *budget = context;

    if (memory != NULL)
        budget->left += malloc_usable_size(memory);
    free(memory);
}

enum tca_status message_unpack(const ProtobufCMessageDescriptor *type, const void *data,
                               size_t bytes, void **message_out, struct tca_error *error)
{
    const size_t allowed = EXPANSION_MAX * bytes + EXPANSION_FREE_BYTES;
    struct budget budget = {.left = allowed};
    ProtobufCAllocator allocator = {
        .alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, bytes, data);
    enum tca_status status;

    if (message == NULL && budget.is_spent)
        return tca_fail(error, TCA_ERR_NO_MEMORY,
                        "message expands too far: %zu bytes of %s, allowed: up to %zu in memory",
                        bytes, type->name, allowed);
    if (message == NULL)
        return tca_fail(error, TCA_ERR_INVALID, "%zu bytes are not a message of type %s", bytes,
                        type->name);
    status = check_message(message, NULL, error);
    if (status != TCA_OK) {
        message_free(message);
        return status;
    }
    *message_out = message;
    return TCA_OK;
}

void message_free(void *message)
{
    if (message != NULL)
        protobuf_c_message_free_unpacked(message, NULL);
}

enum tca_status message_pack(const void *message, struct bytes *out)
{
    const size_t bytes = protobuf_c_message_get_packed_size(message);

    TCA_TRY(bytes_reserve(out, out->size + bytes + 1)); /* never NULL, even for no bytes */
    out->size += protobuf_c_message_pack(message, out->data + out->size);
    return TCA_OK;
}

ProtobufCBinaryData message_text_bytes(const void *text, size_t bytes)
{
    union {
        const void *constant;
        uint8_t *data;
    } borrowed = {.constant = text}; /* protobuf-c has no const for what is only packed */

    return (ProtobufCBinaryData){.len = bytes, .data = borrowed.data};
}

ProtobufCBinaryData message_text(const char *text)
{
    return message_text_bytes(text, strlen(text));
}

enum tca_status message_check_bytes(const char *field, size_t bytes, size_t min, size_t max,
                                    struct tca_error *error)
{
    if (min <= bytes && bytes <= max)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_INVALID, "%s: %zu bytes, allowed: %zu to %zu", field, bytes, min,
                    max);
}
