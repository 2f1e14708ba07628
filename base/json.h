/* Reading JSON with errors that name the file and the key: "…/config.json: rope.factor must be a
 * number, not a string".
 *
 * A node is a place in the document, valid while the document and the nodes it was reached
 * through live; copy the strings you keep. Looking up a key never fails: a key that is absent or
 * null gives an absent node, and the typed getters below turn that into the error. Read-only, so
 * any number of threads may read one document. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/error.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_document;

enum json_type {
    JSON_TYPE_ABSENT, /* no such key, or null */
    JSON_TYPE_OBJECT,
    JSON_TYPE_ARRAY,
    JSON_TYPE_STRING,
    JSON_TYPE_NUMBER,
    JSON_TYPE_BOOL,
};

struct json_node {
    const void *value;
    const struct json_node *parent; /* borrowed; NULL at the root */
    const char *key;                /* in an object (at the root: the file's name), else NULL */
    size_t key_bytes;               /* of `key`, which may not hold NUL */
    size_t index;                   /* in an array */
};

/* Read a regular file of at most `max_bytes`. Nesting is bounded (2,048 levels), and an object
 * with a key twice is refused. TCA_ERR_NOT_FOUND: no such file; TCA_ERR_INVALID: too long, not
 * JSON (with line and column); TCA_ERR_IO; TCA_ERR_NO_MEMORY. */
enum tca_status json_document_open(const char *path, size_t max_bytes,
                                   struct json_document **document_out, struct tca_error *error);
/* The same from memory; `name` stands for the file in errors. Both are copied. */
enum tca_status json_document_parse(const char *name, const char *text, size_t bytes,
                                    struct json_document **document_out, struct tca_error *error);
void json_document_close(struct json_document *document); /* NULL is a no-op */

struct json_node json_document_root(const struct json_document *document);

enum json_type json_node_type(const struct json_node *node);
bool json_node_exists(const struct json_node *node); /* neither absent nor null */

/* The value of a key; absent too when `object` is none (use json_node_expect where it matters). */
struct json_node json_node_get(const struct json_node *object, const char *key);

/* Members of an object (in the file's order) or elements of an array:
 *     struct json_node child = {0};
 *     while (json_node_next(&parent, &child)) ...
 * Null elements count; nothing is visited in a node of another type. */
bool json_node_next(const struct json_node *parent, struct json_node *child);
size_t json_node_count(const struct json_node *node); /* members or elements */

/* TCA_ERR_INVALID with file, key path, the value and what is allowed; outputs are written only on
 * success. Strings are UTF-8 and may hold NUL (one more stands behind them). */
enum tca_status json_node_expect(const struct json_node *node, enum json_type type,
                                 struct tca_error *error);
enum tca_status json_node_string(const struct json_node *node, const char **text_out,
                                 size_t *bytes_out, struct tca_error *error);
enum tca_status json_node_int(const struct json_node *node, int64_t min, int64_t max,
                              int64_t *value_out, struct tca_error *error);
enum tca_status json_node_double(const struct json_node *node, double *value_out,
                                 struct tca_error *error);
enum tca_status json_node_bool(const struct json_node *node, bool *value_out,
                               struct tca_error *error);

/* Report a finding of one's own about a node: "FILE: KEY PATH <text>". Returns `status`. */
enum tca_status json_node_fail(const struct json_node *node, struct tca_error *error,
                               enum tca_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
