/* utf8proc knows the characters and composes; the order of combining marks is made here, because
 * utf8proc_decompose bubbles each mark into place, which is quadratic in a run of them. */
#include "model/nfc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { DECOMPOSED_MAX = 32, CLASSES = 256, FIRST_COMBINING = 0x300, FIRST_COMBINING_LEAD = 0xcc };

struct characters {
    utf8proc_int32_t *data; /* owned */
    size_t count, capacity;
};

/* Characters that are in form C, begin a new combining sequence, and stay as they are whatever
 * stands before them. */
static bool is_inert(utf8proc_int32_t character)
{
    return character < FIRST_COMBINING ||
           (character >= 0x400 && character <= 0x482) ||   /* Cyrillic */
           (character >= 0x2010 && character <= 0x2027) || /* dashes, quotes, bullets */
           (character >= 0x3400 && character <= 0x9fff) || /* CJK ideographs */
           (character >= 0xac00 && character <= 0xd7a3) || /* Hangul syllables */
           (character >= 0x1f300 && character <= 0x1faff); /* emoji */
}

bool nfc_is_certain(const char *text, size_t bytes)
{
    unsigned char largest = 0;

    for (size_t i = 0; i < bytes; i++)
        largest = (unsigned char)text[i] > largest ? (unsigned char)text[i] : largest;
    return largest < FIRST_COMBINING_LEAD;
}

static enum tca_status reserve(struct characters *characters, size_t count)
{
    size_t capacity = characters->capacity == 0 ? 1024 : characters->capacity;
    utf8proc_int32_t *grown;

    if (count <= characters->capacity)
        return TCA_OK;
    while (capacity < count)
        capacity *= 2;
    grown = realloc(characters->data, capacity * sizeof(*grown));
    if (grown == NULL)
        return TCA_ERR_NO_MEMORY;
    characters->data = grown;
    characters->capacity = capacity;
    return TCA_OK;
}

static int class_of(utf8proc_int32_t character)
{
    return utf8proc_get_property(character)->combining_class & (CLASSES - 1);
}

/* Sort the marks of one run by combining class and keep the order of equals: by counting. */
static void sort_marks(utf8proc_int32_t *marks, utf8proc_int32_t *sorted, size_t count)
{
    size_t starts[CLASSES + 1] = {0};

    for (size_t i = 0; i < count; i++)
        starts[class_of(marks[i]) + 1]++;
    for (size_t i = 1; i <= CLASSES; i++)
        starts[i] += starts[i - 1];
    for (size_t i = 0; i < count; i++)
        sorted[starts[class_of(marks[i])]++] = marks[i];
    memcpy(marks, sorted, count * sizeof(*marks));
}

/* Put every run of marks into canonical order. */
static enum tca_status order_marks(struct characters *characters, struct characters *scratch)
{
    size_t at = 0;

    while (at < characters->count) {
        size_t end = at;
        bool is_ordered = true;

        for (; end < characters->count && class_of(characters->data[end]) != 0; end++)
            is_ordered = is_ordered && (end == at || class_of(characters->data[end - 1]) <=
                                                         class_of(characters->data[end]));
        if (!is_ordered) {
            TCA_TRY(reserve(scratch, end - at));
            sort_marks(characters->data + at, scratch->data, end - at);
        }
        at = end + 1;
    }
    return TCA_OK;
}

static enum tca_status decompose(const char *text, size_t bytes, struct characters *characters)
{
    size_t at = 0;

    characters->count = 0;
    while (at < bytes) {
        utf8proc_int32_t character;
        int boundary = 0;

        at += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                       (utf8proc_ssize_t)(bytes - at), &character);
        TCA_TRY(reserve(characters, characters->count + DECOMPOSED_MAX));
        characters->count += (size_t)utf8proc_decompose_char(
            character, characters->data + characters->count, DECOMPOSED_MAX,
            UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
    }
    return TCA_OK;
}

static enum tca_status append_characters(const struct characters *characters,
                                         struct bytes *text_out)
{
    for (size_t i = 0; i < characters->count; i++) {
        utf8proc_uint8_t encoded[4];
        const utf8proc_ssize_t bytes = utf8proc_encode_char(characters->data[i], encoded);

        TCA_TRY(bytes_append(text_out, encoded, (size_t)bytes));
    }
    return TCA_OK;
}

/* Append the form C of a stretch that nothing around it can change. */
static enum tca_status append_stretch(const char *text, size_t bytes, struct characters *characters,
                                      struct characters *scratch, struct bytes *text_out)
{
    utf8proc_ssize_t composed;

    TCA_TRY(decompose(text, bytes, characters));
    TCA_TRY(order_marks(characters, scratch));
    composed = utf8proc_normalize_utf32(characters->data, (utf8proc_ssize_t)characters->count,
                                        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    characters->count = composed < 0 ? 0 : (size_t)composed;
    return append_characters(characters, text_out);
}

static enum tca_status append_all(const char *text, size_t bytes, struct characters *characters,
                                  struct characters *scratch, struct bytes *text_out)
{
    size_t stretch = 0, at = 0; /* the stretch is from the last inert character on */
    bool is_changing = false;   /* the stretch holds more than that character */

    while (at < bytes) {
        utf8proc_int32_t character;
        const size_t length = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                       (utf8proc_ssize_t)(bytes - at), &character);

        if (!is_inert(character)) {
            is_changing = true;
        } else {
            if (is_changing)
                TCA_TRY(
                    append_stretch(text + stretch, at - stretch, characters, scratch, text_out));
            else
                TCA_TRY(bytes_append(text_out, text + stretch, at - stretch));
            stretch = at;
            is_changing = false;
        }
        at += length;
    }
    return append_stretch(text + stretch, at - stretch, characters, scratch, text_out);
}

enum tca_status nfc_append(const char *text, size_t bytes, struct bytes *text_out)
{
    struct characters characters = {0}, scratch = {0};
    const enum tca_status status = append_all(text, bytes, &characters, &scratch, text_out);

    free(characters.data);
    free(scratch.data);
    return status;
}
