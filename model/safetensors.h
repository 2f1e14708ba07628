/* One memory-mapped safetensors file and its table of tensors: 8 bytes little-endian length of a
 * JSON header, the header, then the tensors' bytes, which it must cover exactly. For
 * weight_files.c. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include "base/error.h"
#include "base/status.h"
#include "model/weight_files.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_HEADER_BYTES_MAX = 100000000 }; /* the format's own limit */

struct safetensors_entry {
    char *name; /* owned by the file */
    const struct safetensors *file;
    const char *dtype; /* "BF16", static */
    bool is_readable;  /* a dtype and a shape that struct weight_tensor can hold */
    enum weight_dtype weight_dtype;
    int dimensions;
    int64_t shape[2];  /* the first two, of readable ones */
    size_t begin, end; /* within `data` */
};

struct safetensors {
    char *name; /* of the file without its folder; owned */
    void *map;  /* owned */
    size_t map_bytes;
    const uint8_t *data;
    size_t data_bytes;
    struct safetensors_entry *entries; /* [count] in the order of their bytes, owned */
    size_t count;
};

/* TCA_ERR_NOT_FOUND, TCA_ERR_INVALID, TCA_ERR_IO, TCA_ERR_NO_MEMORY: with file, tensor, reason. */
enum tca_status safetensors_open(const char *folder, const char *name,
                                 struct safetensors **file_out, struct tca_error *error);
void safetensors_close(struct safetensors *file); /* NULL is a no-op */

#endif
