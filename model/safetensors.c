#include "model/safetensors.h"

#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8 };

/* Every dtype that the format knows: all are measured, three are read. */
static const struct dtype {
    const char *name;
    unsigned bits;
    bool is_readable;
    enum weight_dtype weight_dtype;
} dtypes[] = {
    {"BF16", 16, true, WEIGHT_BF16}, {"F16", 16, true, WEIGHT_F16}, {"F32", 32, true, WEIGHT_F32},
    {"BOOL", 8, false, 0},           {"F4", 4, false, 0},           {"F6_E2M3", 6, false, 0},
    {"F6_E3M2", 6, false, 0},        {"U8", 8, false, 0},           {"I8", 8, false, 0},
    {"F8_E5M2", 8, false, 0},        {"F8_E4M3", 8, false, 0},      {"F8_E8M0", 8, false, 0},
    {"I16", 16, false, 0},           {"U16", 16, false, 0},         {"I32", 32, false, 0},
    {"U32", 32, false, 0},           {"F64", 64, false, 0},         {"I64", 64, false, 0},
    {"U64", 64, false, 0},           {"C64", 64, false, 0},
};

static enum tca_status read_dtype(const struct json_node *node, const struct dtype **dtype_out,
                                  struct tca_error *error)
{
    const char *text;
    size_t bytes;

    TCA_TRY(json_node_string(node, &text, &bytes, error));
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strlen(dtypes[i].name) == bytes && memcmp(dtypes[i].name, text, bytes) == 0) {
            *dtype_out = &dtypes[i];
            return TCA_OK;
        }
    return json_node_fail(node, error, TCA_ERR_INVALID, "= \"%.40s\" is no dtype of safetensors",
                          text);
}

/* *elements_out is the product of the shape. */
static enum tca_status read_shape(const struct json_node *node, struct safetensors_entry *entry,
                                  uint64_t *elements_out, struct tca_error *error)
{
    struct json_node child = {0};
    uint64_t product = 1;

    TCA_TRY(json_node_expect(node, JSON_TYPE_ARRAY, error));
    while (json_node_next(node, &child)) {
        int64_t size;

        TCA_TRY(json_node_int(&child, 0, INT64_MAX, &size, error));
        if (entry->dimensions < 2)
            entry->shape[entry->dimensions] = size;
        entry->dimensions++;
        if (__builtin_mul_overflow(product, (uint64_t)size, &product))
            return json_node_fail(node, error, TCA_ERR_INVALID, "has too many elements");
    }
    *elements_out = product;
    return TCA_OK;
}

static enum tca_status read_offsets(const struct json_node *node, size_t data_bytes,
                                    struct safetensors_entry *entry, struct tca_error *error)
{
    struct json_node child = {0};
    int64_t offset[2];

    TCA_TRY(json_node_expect(node, JSON_TYPE_ARRAY, error));
    if (json_node_count(node) != 2)
        return json_node_fail(node, error, TCA_ERR_INVALID, "has %zu elements, must have 2",
                              json_node_count(node));
    for (int i = 0; i < 2; i++) {
        json_node_next(node, &child);
        TCA_TRY(
            json_node_int(&child, i == 0 ? 0 : offset[0], (int64_t)data_bytes, &offset[i], error));
    }
    entry->begin = (size_t)offset[0];
    entry->end = (size_t)offset[1];
    return TCA_OK;
}

static enum tca_status read_entry(const struct json_node *node, const struct safetensors *file,
                                  struct safetensors_entry *entry, struct tca_error *error)
{
    struct json_node dtype_node = json_node_get(node, "dtype");
    struct json_node shape_node = json_node_get(node, "shape");
    struct json_node offsets_node = json_node_get(node, "data_offsets");
    const struct dtype *dtype = NULL;
    uint64_t elements = 0, bits;

    TCA_TRY(json_node_expect(node, JSON_TYPE_OBJECT, error));
    TCA_TRY(read_dtype(&dtype_node, &dtype, error));
    TCA_TRY(read_shape(&shape_node, entry, &elements, error));
    TCA_TRY(read_offsets(&offsets_node, file->data_bytes, entry, error));
    if (__builtin_mul_overflow(elements, (uint64_t)dtype->bits, &bits) || bits % CHAR_BIT != 0 ||
        bits / CHAR_BIT != entry->end - entry->begin)
        return json_node_fail(
            &offsets_node, error, TCA_ERR_INVALID,
            "hold %zu bytes, but shape and dtype %s mean %llu elements of %u bits",
            entry->end - entry->begin, dtype->name, (unsigned long long)elements, dtype->bits);
    entry->file = file;
    entry->dtype = dtype->name;
    entry->weight_dtype = dtype->weight_dtype;
    entry->is_readable = dtype->is_readable && (entry->dimensions == 1 || entry->dimensions == 2);
    return TCA_OK;
}

static int by_bytes(const void *left, const void *right)
{
    const struct safetensors_entry *a = left, *b = right;

    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->end == b->end ? 0 : a->end < b->end ? -1 : 1;
}

/* In the order of their bytes the tensors must touch each other, as the format demands: no two
 * share a byte and none is left over. */
static enum tca_status check_cover(const struct safetensors *file, struct tca_error *error)
{
    size_t end = 0;

    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_entry *entry = &file->entries[i];

        if (entry->begin != end)
            return tca_fail(error, TCA_ERR_INVALID,
                            "%s: %.200s: bytes %zu to %zu %s, the tensor before ends at %zu",
                            file->name, entry->name, entry->begin, entry->end,
                            entry->begin < end ? "overlap another tensor" : "leave a gap", end);
        end = entry->end;
    }
    if (end != file->data_bytes)
        return tca_fail(error, TCA_ERR_INVALID,
                        "%s: %zu bytes of data, but the tensors in the header hold %zu", file->name,
                        file->data_bytes, end);
    return TCA_OK;
}

static enum tca_status read_entries(const struct json_node *root, struct safetensors *file,
                                    struct tca_error *error)
{
    struct json_node child = {0};

    TCA_TRY(json_node_expect(root, JSON_TYPE_OBJECT, error));
    file->entries = calloc(json_node_count(root) + 1, sizeof(*file->entries));
    if (file->entries == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", file->name);
    while (json_node_next(root, &child)) {
        struct safetensors_entry *entry = &file->entries[file->count];

        if (strcmp(child.key, "__metadata__") == 0)
            continue;
        entry->name = strdup(child.key);
        if (entry->name == NULL)
            return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", file->name);
        file->count++;
        TCA_TRY(read_entry(&child, file, entry, error));
    }
    qsort(file->entries, file->count, sizeof(*file->entries), by_bytes);
    return check_cover(file, error);
}

static enum tca_status read_header(struct safetensors *file, struct tca_error *error)
{
    const uint8_t *bytes = file->map;
    struct json_document *document;
    struct json_node root;
    enum tca_status status;
    uint64_t length = 0;

    if (file->map_bytes < LENGTH_BYTES)
        return tca_fail(error, TCA_ERR_INVALID, "%s: %zu bytes are too few for a safetensors file",
                        file->name, file->map_bytes);
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)bytes[i] << (8 * i);
    if (length > file->map_bytes - LENGTH_BYTES || length > SAFETENSORS_HEADER_BYTES_MAX)
        return tca_fail(error, TCA_ERR_INVALID,
                        "%s: a header of %llu bytes in a file of %zu, at most %d are allowed",
                        file->name, (unsigned long long)length, file->map_bytes,
                        SAFETENSORS_HEADER_BYTES_MAX);
    file->data = bytes + LENGTH_BYTES + length;
    file->data_bytes = file->map_bytes - LENGTH_BYTES - (size_t)length;
    TCA_TRY(json_document_parse(file->name, (const char *)bytes + LENGTH_BYTES, (size_t)length,
                                &document, error));
    root = json_document_root(document);
    status = read_entries(&root, file, error);
    json_document_close(document);
    return status;
}

static enum tca_status map_file(const char *path, struct safetensors *file, struct tca_error *error)
{
    enum tca_status status = TCA_OK;
    struct stat facts;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block */

    if (fd < 0)
        return tca_fail(error, errno == ENOENT ? TCA_ERR_NOT_FOUND : TCA_ERR_IO, "%s: %s", path,
                        strerror(errno));
    if (fstat(fd, &facts) != 0) {
        status = tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(facts.st_mode) || facts.st_size == 0) {
        status = tca_fail(error, TCA_ERR_INVALID, "%s: %s", path,
                          S_ISREG(facts.st_mode) ? "the file is empty" : "not a regular file");
    } else {
        file->map = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        file->map_bytes = (size_t)facts.st_size;
        if (file->map == MAP_FAILED) {
            file->map = NULL;
            status = tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
        }
    }
    close(fd);
    return status;
}

enum tca_status safetensors_open(const char *folder, const char *name,
                                 struct safetensors **file_out, struct tca_error *error)
{
    char path[PATH_MAX];
    struct safetensors *file;
    enum tca_status status;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path))
        return tca_fail(error, TCA_ERR_INVALID, "%.80s..: the path is too long", folder);
    file = calloc(1, sizeof(*file));
    if (file == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", name);
    file->name = strdup(name);
    status = file->name != NULL ? map_file(path, file, error)
                                : tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", name);
    if (status == TCA_OK)
        status = read_header(file, error);
    if (status != TCA_OK) {
        safetensors_close(file);
        return status;
    }
    *file_out = file;
    return TCA_OK;
}

void safetensors_close(struct safetensors *file)
{
    if (file == NULL)
        return;
    for (size_t i = 0; i < file->count; i++)
        free(file->entries[i].name);
    free(file->entries);
    if (file->map != NULL)
        munmap(file->map, file->map_bytes);
    free(file->name);
    free(file);
}
