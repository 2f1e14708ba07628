/* Decoding token by token: a character may be spread over several tokens. */
#include "base/utf8.h"
#include "model/tokenizer.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Bytes at the start of `text` that are the beginning of some character and no whole one. */
static size_t broken_bytes(const char *text, size_t bytes)
{
    for (size_t count = bytes < 3 ? bytes : 3; count > 1; count--)
        if (utf8_whole_bytes(text, count) == 0)
            return count;
    return 1;
}

/* Append `text` up to a character that may still become whole; returns the bytes used. */
static enum tca_status append_whole(const char *text, size_t bytes, struct bytes *text_out,
                                    size_t *used_out)
{
    size_t at = 0;

    while (at < bytes) {
        const size_t length = utf8_character_bytes(text + at, bytes - at);

        if (length > 0) {
            TCA_TRY(bytes_append(text_out, text + at, length));
            at += length;
            continue;
        }
        if (bytes - at < 4 && utf8_whole_bytes(text + at, bytes - at) == 0)
            break;
        TCA_TRY(bytes_append_text(text_out, replacement));
        at += broken_bytes(text + at, bytes - at);
    }
    *used_out = at;
    return TCA_OK;
}

enum tca_status token_stream_push(struct token_stream *stream, const struct tokenizer *tokenizer,
                                  int32_t id, struct bytes *text_out)
{
    struct bytes text = {0};
    size_t used = 0;
    enum tca_status status;

    if (!tokenizer_has(tokenizer, id)) {
        TCA_TRY(token_stream_finish(stream, text_out));
        return bytes_append_text(text_out, replacement);
    }
    status = bytes_append(&text, stream->held, (size_t)stream->held_bytes);
    if (status == TCA_OK)
        status = tokenizer_decode(tokenizer, id, false, &text);
    if (status == TCA_OK)
        status = append_whole((const char *)text.data, text.size, text_out, &used);
    if (status == TCA_OK) {
        stream->held_bytes = (int)(text.size - used);
        if (stream->held_bytes > 0) /* a special token has no text, not even a pointer to one */
            memcpy(stream->held, text.data + used, text.size - used);
    }
    bytes_free(&text);
    return status;
}

enum tca_status token_stream_finish(struct token_stream *stream, struct bytes *text_out)
{
    if (stream->held_bytes > 0)
        TCA_TRY(bytes_append_text(text_out, replacement));
    stream->held_bytes = 0;
    return TCA_OK;
}
