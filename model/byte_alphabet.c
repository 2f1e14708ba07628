#include "model/byte_alphabet.h"

/* The bytes that are not printable in Latin-1 lie in three runs: 0-32, 127-160 and 173. */
enum {
    FIRST_MOVED = 0x100, /* the character of byte 0 */
    MOVED_127 = FIRST_MOVED + 33,
    MOVED_173 = MOVED_127 + 34,
};

size_t byte_alphabet_encode(uint8_t byte, char text_out[2])
{
    unsigned character = byte;

    if (byte <= 32)
        character = FIRST_MOVED + byte;
    else if (byte >= 127 && byte <= 160)
        character = MOVED_127 + byte - 127u;
    else if (byte == 173)
        character = MOVED_173;
    if (character < 0x80) {
        text_out[0] = (char)character;
        return 1;
    }
    text_out[0] = (char)(0xc0 | (character >> 6));
    text_out[1] = (char)(0x80 | (character & 0x3f));
    return 2;
}

/* -1: not of the alphabet. */
static int byte_of(unsigned character)
{
    if (character >= FIRST_MOVED && character < MOVED_127)
        return (int)(character - FIRST_MOVED);
    if (character >= MOVED_127 && character < MOVED_173)
        return (int)(character - MOVED_127) + 127;
    if (character == MOVED_173)
        return 173;
    if ((character >= 33 && character <= 126) ||
        (character >= 161 && character <= 255 && character != 173))
        return (int)character;
    return -1;
}

bool byte_alphabet_decode(const char *text, size_t bytes, char *data_out, size_t *bytes_out)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t used = 0;

    for (size_t at = 0; at < bytes; at++) {
        unsigned character = c[at];
        int byte;

        if (character >= 0x80) {
            if (character >= 0xe0 || at + 1 == bytes)
                return false;
            character = (character & 0x1f) << 6 | (c[++at] & 0x3fu);
        }
        byte = byte_of(character);
        if (byte < 0)
            return false;
        data_out[used++] = (char)byte;
    }
    *bytes_out = used;
    return true;
}
