#include "base/json.h"

#include "base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct json_document {
    json_t *root; /* owned */
    char *name;   /* owned */
};

static const char *const type_names[] = {
    [JSON_TYPE_ABSENT] = "missing",  [JSON_TYPE_OBJECT] = "an object",
    [JSON_TYPE_ARRAY] = "an array",  [JSON_TYPE_STRING] = "a string",
    [JSON_TYPE_NUMBER] = "a number", [JSON_TYPE_BOOL] = "true or false",
};

enum tca_status json_document_parse(const char *name, const char *text, size_t bytes,
                                    struct json_document **document_out, struct tca_error *error)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    struct json_document *document = calloc(1, sizeof(*document));
    json_error_t reason;

    if (document == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", name);
    document->name = strdup(name);
    document->root = json_loadb(text, bytes, flags, &reason);
    /* Hugging Face writes "no limit" as 1e30 in digits, which no 64-bit integer holds. */
    if (document->root == NULL && json_error_code(&reason) == json_error_numeric_overflow)
        document->root = json_loadb(text, bytes, flags | JSON_DECODE_INT_AS_REAL, &reason);
    if (document->name == NULL || document->root == NULL) {
        const bool is_memory =
            document->name == NULL || json_error_code(&reason) == json_error_out_of_memory;

        json_document_close(document);
        if (is_memory)
            return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", name);
        return tca_fail(error, TCA_ERR_INVALID, "%s: not JSON: line %d, column %d: %s", name,
                        reason.line, reason.column, reason.text);
    }
    *document_out = document;
    return TCA_OK;
}

/* Fill data[bytes] from `file`; false with errno when it ends early or fails. */
static bool read_whole(int file, char *data, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        const ssize_t got = read(file, data + done, bytes - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = EIO; /* it shrank under us */
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static enum tca_status read_file(int file, const char *path, size_t max_bytes, char **text_out,
                                 size_t *bytes_out, struct tca_error *error)
{
    struct stat facts;
    size_t bytes;
    char *text;

    if (fstat(file, &facts) != 0)
        return tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(facts.st_mode))
        return tca_fail(error, TCA_ERR_INVALID, "%s: not a regular file", path);
    bytes = (size_t)facts.st_size;
    if (bytes > max_bytes)
        return tca_fail(error, TCA_ERR_INVALID, "%s: %zu bytes long, at most %zu are read", path,
                        bytes, max_bytes);
    text = malloc(bytes + 1);
    if (text == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", path);
    if (!read_whole(file, text, bytes)) {
        free(text);
        return tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
    }
    *text_out = text;
    *bytes_out = bytes;
    return TCA_OK;
}

enum tca_status json_document_open(const char *path, size_t max_bytes,
                                   struct json_document **document_out, struct tca_error *error)
{
    /* Non-blocking: a FIFO in the file's place must not hang the open. */
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum tca_status status;
    char *text = NULL;
    size_t bytes = 0;

    if (file < 0)
        return tca_fail(error, errno == ENOENT || errno == ENOTDIR ? TCA_ERR_NOT_FOUND : TCA_ERR_IO,
                        "%s: %s", path, strerror(errno));
    status = read_file(file, path, max_bytes, &text, &bytes, error);
    close(file);
    if (status != TCA_OK)
        return status;
    status = json_document_parse(path, text, bytes, document_out, error);
    free(text);
    return status;
}

void json_document_close(struct json_document *document)
{
    if (document == NULL)
        return;
    json_decref(document->root);
    free(document->name);
    free(document);
}

struct json_node json_document_root(const struct json_document *document)
{
    return (struct json_node){
        .value = document->root,
        .key = document->name,
        .key_bytes = strlen(document->name),
    };
}

enum json_type json_node_type(const struct json_node *node)
{
    if (node->value == NULL)
        return JSON_TYPE_ABSENT;
    switch (json_typeof((const json_t *)node->value)) {
    case JSON_OBJECT:
        return JSON_TYPE_OBJECT;
    case JSON_ARRAY:
        return JSON_TYPE_ARRAY;
    case JSON_STRING:
        return JSON_TYPE_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return JSON_TYPE_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return JSON_TYPE_BOOL;
    case JSON_NULL:
        break;
    }
    return JSON_TYPE_ABSENT;
}

bool json_node_exists(const struct json_node *node)
{
    return json_node_type(node) != JSON_TYPE_ABSENT;
}

struct json_node json_node_get(const struct json_node *object, const char *key)
{
    return (struct json_node){
        .value = json_object_get(object->value, key), /* NULL for whatever is no object */
        .parent = object,
        .key = key,
        .key_bytes = strlen(key),
    };
}

/* jansson's iterators want a mutable object and write nothing. */
static json_t *writable(const struct json_node *node)
{
    union {
        const void *from;
        json_t *to;
    } cast = {.from = node->value};

    return cast.to;
}

static bool next_member(const struct json_node *parent, struct json_node *child)
{
    json_t *object = writable(parent);
    void *at = child->parent == NULL
                   ? json_object_iter(object)
                   : json_object_iter_next(object, json_object_key_to_iter(child->key));

    if (at == NULL)
        return false;
    *child = (struct json_node){
        .value = json_object_iter_value(at),
        .parent = parent,
        .key = json_object_iter_key(at),
        .key_bytes = json_object_iter_key_len(at),
    };
    return true;
}

bool json_node_next(const struct json_node *parent, struct json_node *child)
{
    const size_t index = child->parent == NULL ? 0 : child->index + 1;

    if (json_node_type(parent) == JSON_TYPE_OBJECT)
        return next_member(parent, child);
    if (index >= json_array_size(parent->value)) /* 0 for whatever is no array */
        return false;
    *child = (struct json_node){
        .value = json_array_get(parent->value, index),
        .parent = parent,
        .index = index,
    };
    return true;
}

size_t json_node_count(const struct json_node *node)
{
    return json_object_size(node->value) + json_array_size(node->value);
}

/* Append "a.b[3]" to text[capacity] at `used`; long keys are cut. Returns the bytes now used. */
static size_t write_path(const struct json_node *node, char *text, size_t capacity, size_t used)
{
    int wrote;

    if (node->parent == NULL)
        return used;
    used = write_path(node->parent, text, capacity, used);
    if (node->key == NULL)
        wrote = snprintf(text + used, capacity - used, "[%zu]", node->index);
    else
        wrote = snprintf(text + used, capacity - used, "%s%.64s", used == 0 ? "" : ".", node->key);
    used += (size_t)wrote;
    return used < capacity ? used : capacity - 1;
}

enum tca_status json_node_fail(const struct json_node *node, struct tca_error *error,
                               enum tca_status status, const char *format, ...)
{
    const struct json_node *root = node;
    char path[160], finding[TCA_ERROR_TEXT_BYTES];
    size_t path_bytes;
    va_list arguments;

    while (root->parent != NULL)
        root = root->parent;
    path_bytes = write_path(node, path, sizeof(path), 0);
    path[utf8_whole_bytes(path, path_bytes)] = '\0';
    va_start(arguments, format);
    vsnprintf(finding, sizeof(finding), format, arguments);
    va_end(arguments);
    return tca_fail(error, status, "%s: %s %s", root->key, path_bytes == 0 ? "the top level" : path,
                    finding);
}

enum tca_status json_node_expect(const struct json_node *node, enum json_type type,
                                 struct tca_error *error)
{
    const enum json_type found = json_node_type(node);

    if (found == type)
        return TCA_OK;
    /* What is missing in something that is no object: say what it is instead. */
    if (found == JSON_TYPE_ABSENT && node->parent != NULL && node->key != NULL)
        TCA_TRY(json_node_expect(node->parent, JSON_TYPE_OBJECT, error));
    if (found == JSON_TYPE_ABSENT)
        return json_node_fail(node, error, TCA_ERR_INVALID, "is missing, must be %s",
                              type_names[type]);
    return json_node_fail(node, error, TCA_ERR_INVALID, "must be %s, not %s", type_names[type],
                          type_names[found]);
}

enum tca_status json_node_string(const struct json_node *node, const char **text_out,
                                 size_t *bytes_out, struct tca_error *error)
{
    TCA_TRY(json_node_expect(node, JSON_TYPE_STRING, error));
    *text_out = json_string_value(node->value);
    *bytes_out = json_string_length(node->value);
    return TCA_OK;
}

enum tca_status json_node_int(const struct json_node *node, int64_t min, int64_t max,
                              int64_t *value_out, struct tca_error *error)
{
    const double exact = 9007199254740992.0; /* 2^53 */
    int64_t value;

    TCA_TRY(json_node_expect(node, JSON_TYPE_NUMBER, error));
    if (json_is_integer((const json_t *)node->value)) {
        value = json_integer_value(node->value);
    } else {
        const double real = json_real_value(node->value);

        if (!(real >= -exact && real <= exact) || real != (double)(int64_t)real)
            return json_node_fail(node, error, TCA_ERR_INVALID,
                                  "= %g must be an integer from %lld to %lld", real, (long long)min,
                                  (long long)max);
        value = (int64_t)real;
    }
    if (value < min || value > max)
        return json_node_fail(node, error, TCA_ERR_INVALID, "= %lld must be from %lld to %lld",
                              (long long)value, (long long)min, (long long)max);
    *value_out = value;
    return TCA_OK;
}

enum tca_status json_node_double(const struct json_node *node, double *value_out,
                                 struct tca_error *error)
{
    TCA_TRY(json_node_expect(node, JSON_TYPE_NUMBER, error));
    *value_out = json_number_value(node->value);
    return TCA_OK;
}

enum tca_status json_node_bool(const struct json_node *node, bool *value_out,
                               struct tca_error *error)
{
    TCA_TRY(json_node_expect(node, JSON_TYPE_BOOL, error));
    *value_out = json_is_true((const json_t *)node->value);
    return TCA_OK;
}
