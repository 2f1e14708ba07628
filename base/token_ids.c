#include "base/token_ids.h"

#include <stdio.h>
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

enum tca_status token_ids_read_file(struct token_ids *tokens, const char *path)
{
    FILE *file = fopen(path, "rb");
    enum tca_status status = TCA_OK;
    unsigned char bytes[4];

    if (file == NULL)
        return TCA_ERR_NOT_FOUND;
    while (status == TCA_OK && fread(bytes, sizeof(bytes), 1, file) == 1) {
        const uint32_t id = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 |
                            (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
        const int32_t value = (int32_t)id;

        status = token_ids_append(tokens, &value, 1);
    }
    fclose(file);
    return status;
}

void token_ids_free(struct token_ids *tokens)
{
    free(tokens->ids);
    *tokens = (struct token_ids){0};
}
