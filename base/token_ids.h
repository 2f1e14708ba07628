/* A growing array of token ids, owned by whoever holds the struct. All zeros is empty. */
#ifndef BASE_TOKEN_IDS_H
#define BASE_TOKEN_IDS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct token_ids {
    int32_t *ids; /* owned */
    size_t count;
    size_t capacity;
};

enum tca_status token_ids_append(struct token_ids *tokens, const int32_t *ids, size_t count);
/* Append the ids of a file, u32 little-endian. TCA_ERR_NOT_FOUND, TCA_ERR_NO_MEMORY. */
enum tca_status token_ids_read_file(struct token_ids *tokens, const char *path);
void token_ids_free(struct token_ids *tokens); /* back to all zeros */

#endif
