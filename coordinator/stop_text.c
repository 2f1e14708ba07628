#include "coordinator/stop_text.h"

#include <stdlib.h>
#include <string.h>

enum tca_status stop_text_add(struct stop_text *stop, const void *text, size_t bytes)
{
    struct bytes *grown = realloc(stop->stops, (stop->count + 1) * sizeof(*grown));

    if (grown == NULL)
        return TCA_ERR_NO_MEMORY;
    stop->stops = grown;
    grown[stop->count] = (struct bytes){0};
    TCA_TRY(bytes_append(&grown[stop->count], text, bytes));
    stop->count++;
    return TCA_OK;
}

void stop_text_free(struct stop_text *stop)
{
    for (size_t i = 0; i < stop->count; i++)
        bytes_free(&stop->stops[i]);
    free(stop->stops);
    bytes_free(&stop->held);
    *stop = (struct stop_text){0};
}

/* Where the stop string begins that is complete first; of several, the longest. */
static bool find_stop(const struct stop_text *stop, size_t *begin_out)
{
    const struct bytes *held = &stop->held;
    size_t first_end = SIZE_MAX;

    for (size_t i = 0; i < stop->count; i++) {
        const struct bytes *text = &stop->stops[i];
        const uint8_t *at = memmem(held->data, held->size, text->data, text->size);
        const size_t begin = at == NULL ? 0 : (size_t)(at - held->data);

        if (at == NULL || begin + text->size > first_end ||
            (begin + text->size == first_end && begin > *begin_out))
            continue;
        first_end = begin + text->size;
        *begin_out = begin;
    }
    return first_end != SIZE_MAX;
}

/* Bytes at the end of the held text that begin a stop string. */
static size_t held_back(const struct stop_text *stop)
{
    const struct bytes *held = &stop->held;
    size_t most = 0;

    for (size_t i = 0; i < stop->count; i++) {
        const struct bytes *text = &stop->stops[i];
        size_t bytes = held->size < text->size ? held->size : text->size - 1;

        while (bytes > most && memcmp(held->data + held->size - bytes, text->data, bytes) != 0)
            bytes--;
        if (bytes > most)
            most = bytes;
    }
    return most;
}

enum tca_status stop_text_push(struct stop_text *stop, const void *text, size_t bytes,
                               struct bytes *released_out, bool *is_stopped_out)
{
    size_t released = 0;

    *is_stopped_out = false;
    TCA_TRY(bytes_append(&stop->held, text, bytes));
    if (stop->held.size == 0)
        return TCA_OK;
    *is_stopped_out = find_stop(stop, &released);
    if (!*is_stopped_out)
        released = stop->held.size - held_back(stop);
    TCA_TRY(bytes_append(released_out, stop->held.data, released));
    if (*is_stopped_out)
        released = stop->held.size;
    memmove(stop->held.data, stop->held.data + released, stop->held.size - released);
    stop->held.size -= released;
    return TCA_OK;
}

enum tca_status stop_text_finish(struct stop_text *stop, struct bytes *released_out)
{
    TCA_TRY(bytes_append(released_out, stop->held.data, stop->held.size));
    bytes_clear(&stop->held);
    return TCA_OK;
}
