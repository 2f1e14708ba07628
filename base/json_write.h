/* Writing JSON: a text as a string literal. The rest of JSON is plain enough to print. */
#ifndef BASE_JSON_WRITE_H
#define BASE_JSON_WRITE_H

#include "base/bytes.h"

#include <stddef.h>

/* Append `text` (UTF-8, may hold NUL) in quotes, with what JSON does not allow escaped.
 * TCA_ERR_NO_MEMORY. */
enum tca_status json_write_string(struct bytes *out, const void *text, size_t bytes);

#endif
