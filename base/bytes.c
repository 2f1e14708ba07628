#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

enum tca_status bytes_reserve(struct bytes *bytes, size_t capacity)
{
    size_t grown = bytes->capacity;
    uint8_t *data;

    if (capacity <= bytes->capacity)
        return TCA_OK;
    while (grown < capacity)
        grown = grown < 64 ? 64 : grown > SIZE_MAX / 2 ? capacity : grown * 2;
    data = realloc(bytes->data, grown);
    if (data == NULL)
        return TCA_ERR_NO_MEMORY;
    bytes->data = data;
    bytes->capacity = grown;
    return TCA_OK;
}

enum tca_status bytes_append(struct bytes *bytes, const void *data, size_t size)
{
    if (size == 0)
        return TCA_OK;
    if (size > SIZE_MAX - bytes->size)
        return TCA_ERR_NO_MEMORY;
    TCA_TRY(bytes_reserve(bytes, bytes->size + size));
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
    return TCA_OK;
}

enum tca_status bytes_append_text(struct bytes *bytes, const char *text)
{
    return bytes_append(bytes, text, strlen(text));
}

void bytes_clear(struct bytes *bytes)
{
    bytes->size = 0;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}
