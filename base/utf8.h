/* UTF-8 as the wire and the tokenizer need it: validity, and where a character ends. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). NUL is legal. */
bool utf8_is_valid(const char *text, size_t bytes);

/* Bytes of `text` without an incomplete character at its end. Invalid bytes count as whole. */
size_t utf8_whole_bytes(const char *text, size_t bytes);

/* Bytes of the well-formed character at the start of `text`, 1 to 4; 0 when there is none. */
size_t utf8_character_bytes(const char *text, size_t bytes);

#endif
