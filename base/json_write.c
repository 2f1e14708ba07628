#include "base/json_write.h"

#include <stdio.h>

static enum tca_status write_escaped(struct bytes *out, uint8_t character)
{
    char escape[8];

    switch (character) {
    case '"':
        return bytes_append_text(out, "\\\"");
    case '\\':
        return bytes_append_text(out, "\\\\");
    case '\n':
        return bytes_append_text(out, "\\n");
    case '\r':
        return bytes_append_text(out, "\\r");
    case '\t':
        return bytes_append_text(out, "\\t");
    default:
        snprintf(escape, sizeof(escape), "\\u%04x", character);
        return bytes_append_text(out, escape);
    }
}

enum tca_status json_write_string(struct bytes *out, const void *text, size_t bytes)
{
    const uint8_t *characters = text;
    size_t plain = 0; /* start of the run that needs no escape */

    TCA_TRY(bytes_append(out, "\"", 1));
    for (size_t at = 0; at < bytes; at++) {
        const uint8_t character = characters[at];

        if (character >= 0x20 && character != '"' && character != '\\' && character != 0x7f)
            continue;
        TCA_TRY(bytes_append(out, characters + plain, at - plain));
        TCA_TRY(write_escaped(out, character));
        plain = at + 1;
    }
    TCA_TRY(bytes_append(out, characters + plain, bytes - plain));
    return bytes_append(out, "\"", 1);
}
