#include "base/token_ids.h"

#include <stdlib.h>
#include <string.h>

enum tca_status token_ids_append(struct token_ids *tokens, const int32_t *ids, size_t count)
{
    if (count == 0)
        return TCA_OK;
    if (count > SIZE_MAX / sizeof(*ids) / 2 - tokens->count)
        return TCA_ERR_NO_MEMORY;
    if (tokens->count + count > tokens->capacity) {
        size_t capacity = tokens->capacity < 64 ? 64 : tokens->capacity * 2;
        int32_t *grown;

        if (capacity < tokens->count + count)
            capacity = tokens->count + count;
        grown = realloc(tokens->ids, capacity * sizeof(*grown));
        if (grown == NULL)
            return TCA_ERR_NO_MEMORY;
        tokens->ids = grown;
        tokens->capacity = capacity;
    }
    memcpy(tokens->ids + tokens->count, ids, count * sizeof(*ids));
    tokens->count += count;
    return TCA_OK;
}

void token_ids_free(struct token_ids *tokens)
{
    free(tokens->ids);
    *tokens = (struct token_ids){0};
}
