#include "coordinator/content_check.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <string.h>

static enum tca_status check_text(struct content_check *check, const uint8_t *data, size_t bytes,
                                  struct tca_error *error)
{
    size_t used = 0;
    size_t whole;

    /* Finish the character that the last piece began. */
    while (check->held_bytes > 0 && used < bytes) {
        const char *held = (const char *)check->held;

        check->held[check->held_bytes++] = data[used++];
        if (utf8_character_bytes(held, (size_t)check->held_bytes) != 0)
            check->held_bytes = 0;
        else if (utf8_whole_bytes(held, (size_t)check->held_bytes) != 0)
            return tca_fail(error, TCA_ERR_INVALID, "data: no UTF-8 at byte %" PRId64,
                            check->offset + (int64_t)used - check->held_bytes);
    }
    data += used;
    whole = utf8_whole_bytes((const char *)data, bytes - used);
    if (!utf8_is_valid((const char *)data, whole)) {
        size_t at = 0;

        for (size_t step = 1; step != 0; at += step)
            step = utf8_character_bytes((const char *)data + at, whole - at);
        return tca_fail(error, TCA_ERR_INVALID, "data: no UTF-8 at byte %" PRId64,
                        check->offset + (int64_t)(used + at));
    }
    for (size_t at = whole; at < bytes - used; at++)
        check->held[check->held_bytes++] = data[at];
    return TCA_OK;
}

static enum tca_status check_ids(struct content_check *check, const uint8_t *data, size_t bytes,
                                 struct tca_error *error)
{
    int64_t index = (check->offset - check->held_bytes) / 4;

    for (size_t at = 0; at < bytes; at++) {
        uint32_t id;

        check->held[check->held_bytes++] = data[at];
        if (check->held_bytes < 4)
            continue;
        id = (uint32_t)check->held[0] | (uint32_t)check->held[1] << 8 |
             (uint32_t)check->held[2] << 16 | (uint32_t)check->held[3] << 24;
        if (id >= (uint32_t)check->vocab)
            return tca_fail(error, TCA_ERR_INVALID,
                            "data: token id %" PRIu32 " at index %" PRId64
                            " is outside the vocabulary, allowed: 0 to %" PRId32,
                            id, index, check->vocab - 1);
        index++;
        check->held_bytes = 0;
    }
    return TCA_OK;
}

enum tca_status content_check_push(struct content_check *check, const void *data, size_t bytes,
                                   struct tca_error *error)
{
    struct content_check next = *check;

    switch (check->encoding) {
    case CONTENT_TEXT_UTF8:
        TCA_TRY(check_text(&next, data, bytes, error));
        break;
    case CONTENT_TOKEN_IDS_U32LE:
        TCA_TRY(check_ids(&next, data, bytes, error));
        break;
    }
    next.offset += (int64_t)bytes;
    *check = next;
    return TCA_OK;
}

enum tca_status content_check_finish(const struct content_check *check, struct tca_error *error)
{
    if (check->offset == 0)
        return tca_fail(error, TCA_ERR_INVALID, "data: 0 bytes, allowed: at least 1");
    if (check->held_bytes == 0)
        return TCA_OK;
    switch (check->encoding) {
    case CONTENT_TEXT_UTF8:
        return tca_fail(error, TCA_ERR_INVALID,
                        "data: ends inside a UTF-8 character at byte %" PRId64,
                        check->offset - check->held_bytes);
    case CONTENT_TOKEN_IDS_U32LE:
        return tca_fail(error, TCA_ERR_INVALID,
                        "data: %" PRId64 " bytes are no whole number of 4-byte token ids",
                        check->offset);
    }
    return TCA_OK;
}
