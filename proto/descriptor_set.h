/* The published .proto files as descriptors, parsed from what protoc wrote at build time: find a
 * file by its name or by a symbol in it. Immutable once created. Private to proto/. */
#ifndef PROTO_DESCRIPTOR_SET_H
#define PROTO_DESCRIPTOR_SET_H

#include "base/bytes.h"

#include <google/protobuf/descriptor.pb-c.h>

struct descriptor_set {
    Google__Protobuf__FileDescriptorSet *files; /* owned */
    struct bytes *packed;                       /* [files->n_file], each a FileDescriptorProto */
};

enum tca_status descriptor_set_init(struct descriptor_set *set);
void descriptor_set_deinit(struct descriptor_set *set);

/* Index of the file with this name, or with this fully qualified message, field, enum, enum value,
 * service or method; -1: none. */
int descriptor_set_find_file(const struct descriptor_set *set, const void *name, size_t bytes);
int descriptor_set_find_symbol(const struct descriptor_set *set, const void *symbol, size_t bytes);

#endif
