/* A growing byte string, owned by whoever holds the struct. All zeros is the empty string. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data; /* owned; NULL while capacity is 0 */
    size_t size;
    size_t capacity;
};

/* TCA_ERR_NO_MEMORY leaves the string as it was. */
enum tca_status bytes_reserve(struct bytes *bytes, size_t capacity);
enum tca_status bytes_append(struct bytes *bytes, const void *data, size_t size);
enum tca_status bytes_append_text(struct bytes *bytes, const char *text); /* without its NUL */
void bytes_clear(struct bytes *bytes);                                    /* keeps the memory */
void bytes_free(struct bytes *bytes);                                     /* back to all zeros */

#endif
