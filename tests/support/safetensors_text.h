/* Writes safetensors files byte by byte, right ones and wrong ones. */
#ifndef TESTS_SUPPORT_SAFETENSORS_TEXT_H
#define TESTS_SUPPORT_SAFETENSORS_TEXT_H

#include "tests/support/folder.h"

/* Header text and `data_bytes` bytes 0, 1, 2, .. after it; `length` is what the file says of its
 * header. */
static inline void safetensors_write_length(const struct folder *folder, const char *name,
                                            const char *header, uint64_t length, size_t data_bytes)
{
    const size_t header_bytes = strlen(header);
    uint8_t *file = malloc(8 + header_bytes + data_bytes);

    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(length >> (8 * i));
    memcpy(file + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + header_bytes + i] = (uint8_t)i;
    folder_write(folder, name, file, 8 + header_bytes + data_bytes);
    free(file);
}

static inline void safetensors_write(const struct folder *folder, const char *name,
                                     const char *header, size_t data_bytes)
{
    safetensors_write_length(folder, name, header, strlen(header), data_bytes);
}

#endif
