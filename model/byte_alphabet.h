/* The alphabet of byte-level BPE (GPT-2's): every byte is written as one printable character, so
 * that a vocabulary can be a JSON object. Printable Latin-1 stands for itself, the 68 other bytes
 * take U+0100 onwards: a space is "Ġ", a line feed "Ċ". */
#ifndef MODEL_BYTE_ALPHABET_H
#define MODEL_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The character of a byte as UTF-8 in text_out; returns its length, 1 or 2. */
size_t byte_alphabet_encode(uint8_t byte, char text_out[2]);

/* The bytes behind `text` (valid UTF-8) into data_out[bytes]; false when a character is not of
 * the alphabet. data_out may be `text`. */
bool byte_alphabet_decode(const char *text, size_t bytes, char *data_out, size_t *bytes_out);

#endif
