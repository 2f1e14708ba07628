#include "proto/descriptor_set.h"

#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t wire[] = {
#include "descriptor_set.inc"
};

enum tca_status descriptor_set_init(struct descriptor_set *set)
{
    enum tca_status status = TCA_ERR_NO_MEMORY;

    memset(set, 0, sizeof(*set));
    set->files = google__protobuf__file_descriptor_set__unpack(NULL, sizeof(wire), wire);
    if (set->files == NULL)
        return TCA_ERR_NO_MEMORY;
    set->packed = calloc(set->files->n_file, sizeof(*set->packed));
    if (set->packed != NULL)
        status = TCA_OK;
    for (size_t i = 0; status == TCA_OK && i < set->files->n_file; i++)
        status = message_pack(set->files->file[i], &set->packed[i]);
    if (status != TCA_OK)
        descriptor_set_deinit(set);
    return status;
}

void descriptor_set_deinit(struct descriptor_set *set)
{
    for (size_t i = 0; set->packed != NULL && i < set->files->n_file; i++)
        bytes_free(&set->packed[i]);
    free(set->packed);
    message_free(set->files);
    memset(set, 0, sizeof(*set));
}

static bool is_equal(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

int descriptor_set_find_file(const struct descriptor_set *set, const void *name, size_t bytes)
{
    const ProtobufCBinaryData wanted = message_text_bytes(name, bytes);

    for (size_t i = 0; i < set->files->n_file; i++)
        if (is_equal(set->files->file[i]->name, wanted))
            return (int)i;
    return -1;
}

/* Is `symbol` in the scope `name`? Then *rest_out is what follows
 * "name.", empty for name itself. */
static bool is_in(ProtobufCBinaryData symbol, ProtobufCBinaryData name,
                  ProtobufCBinaryData *rest_out)
{
    size_t used = name.len;

    if (symbol.len < used || (used > 0 && memcmp(symbol.data, name.data, used) != 0))
        return false;
    if (used > 0 && symbol.len > used) {
        if (symbol.data[used] != '.' || symbol.len == used + 1)
            return false;
        used++;
    }
    *rest_out = message_text_bytes(symbol.data + used, symbol.len - used);
    return true;
}

/* Values of an enum lie in the scope around it. */
static bool enum_has(const Google__Protobuf__EnumDescriptorProto *type, ProtobufCBinaryData symbol)
{
    if (is_equal(symbol, type->name))
        return true;
    for (size_t i = 0; i < type->n_value; i++)
        if (is_equal(symbol, type->value[i]->name))
            return true;
    return false;
}

static bool message_has(const Google__Protobuf__DescriptorProto *type, ProtobufCBinaryData symbol)
{
    ProtobufCBinaryData rest;

    if (!is_in(symbol, type->name, &rest))
        return false;
    if (rest.len == 0)
        return true;
    for (size_t i = 0; i < type->n_field; i++)
        if (is_equal(rest, type->field[i]->name))
            return true;
    for (size_t i = 0; i < type->n_oneof_decl; i++)
        if (is_equal(rest, type->oneof_decl[i]->name))
            return true;
    for (size_t i = 0; i < type->n_enum_type; i++)
        if (enum_has(type->enum_type[i], rest))
            return true;
    for (size_t i = 0; i < type->n_nested_type; i++)
        if (message_has(type->nested_type[i], rest))
            return true;
    return false;
}

static bool service_has(const Google__Protobuf__ServiceDescriptorProto *service,
                        ProtobufCBinaryData symbol)
{
    ProtobufCBinaryData rest;

    if (!is_in(symbol, service->name, &rest))
        return false;
    if (rest.len == 0)
        return true;
    for (size_t i = 0; i < service->n_method; i++)
        if (is_equal(rest, service->method[i]->name))
            return true;
    return false;
}

static bool file_has(const Google__Protobuf__FileDescriptorProto *file, ProtobufCBinaryData symbol)
{
    ProtobufCBinaryData rest;

    if (!is_in(symbol, file->package, &rest) || rest.len == 0)
        return false;
    for (size_t i = 0; i < file->n_message_type; i++)
        if (message_has(file->message_type[i], rest))
            return true;
    for (size_t i = 0; i < file->n_enum_type; i++)
        if (enum_has(file->enum_type[i], rest))
            return true;
    for (size_t i = 0; i < file->n_service; i++)
        if (service_has(file->service[i], rest))
            return true;
    return false;
}

int descriptor_set_find_symbol(const struct descriptor_set *set, const void *symbol, size_t bytes)
{
    for (size_t i = 0; i < set->files->n_file; i++)
        if (file_has(set->files->file[i], message_text_bytes(symbol, bytes)))
            return (int)i;
    return -1;
}
