#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Length that a lead byte announces, 0 when it cannot lead. */
static size_t lead_bytes(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef)
        return 3;
    if (lead >= 0xf0 && lead <= 0xf4)
        return 4;
    return 0;
}

/* The second byte's range depends on the lead: it rules out overlong forms and surrogates. */
static int is_second_byte(unsigned char lead, unsigned char second)
{
    const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

size_t utf8_character_bytes(const char *text, size_t bytes)
{
    const unsigned char *c = (const unsigned char *)text;
    const size_t length = bytes == 0 ? 0 : lead_bytes(c[0]);

    if (length == 0 || length > bytes || (length > 1 && !is_second_byte(c[0], c[1])))
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

bool utf8_is_valid(const char *text, size_t bytes)
{
    size_t at = 0;

    while (at < bytes) {
        uint64_t eight;

        /* Plain ASCII is most of the text: eight bytes a step. */
        while (bytes - at >= sizeof(eight)) {
            memcpy(&eight, text + at, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) != 0)
                break;
            at += sizeof(eight);
        }
        if (at == bytes)
            break;
        const size_t length = utf8_character_bytes(text + at, bytes - at);
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

size_t utf8_whole_bytes(const char *text, size_t bytes)
{
    const unsigned char *c = (const unsigned char *)text;

    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        const size_t at = bytes - back;
        const size_t length = lead_bytes(c[at]);

        if ((c[at] & 0xc0) == 0x80)
            continue;
        if (length <= back || (back > 1 && !is_second_byte(c[at], c[at + 1])))
            return bytes;
        return at;
    }
    return bytes;
}
