#include "tests/support/check.h"

#include "model/nfc.h"

#include <stdlib.h>
#include <string.h>

static void assert_form(const char *text, const char *expected)
{
    struct bytes found = {0};

    assert_int_equal(nfc_append(text, strlen(text), &found), TCA_OK);
    assert_int_equal(found.size, strlen(expected));
    assert_memory_equal(found.data, expected, found.size);
    if (nfc_is_certain(text, strlen(text)))
        assert_string_equal(text, expected);
    bytes_free(&found);
}

/* The cases are those of UAX 15 and of Python's unicodedata.normalize("NFC", ...). */
static void known_texts_come_out_composed(void **state)
{
    (void)state;
    assert_form("plain", "plain");
    assert_form("e\xcc\x81", "\xc3\xa9");                                /* e + acute */
    assert_form("\xc3\xa9\xcc\xa3", "\xe1\xba\xb9\xcc\x81");             /* dot goes first */
    assert_form("a\xcc\x81\xcc\xa3z", "\xe1\xba\xa1\xcc\x81z");          /* marks are ordered */
    assert_form("\xe2\x84\xab\xe2\x84\xa6", "\xc3\x85\xce\xa9");         /* Angstrom, Ohm */
    assert_form("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul L V T */
    assert_form("\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");             /* syllable + T */
    assert_form("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");             /* excluded */
    assert_form("\xe3\x81\x8b\xe3\x82\x99", "\xe3\x81\x8c");             /* kana + voiced mark */
    assert_form("\xef\xa4\x80", "\xe8\xb1\x88");                         /* ideograph */
    assert_form("\xcc\x81\x65", "\xcc\x81\x65");                         /* a mark first */
    assert_form("\xf0\x9f\x98\x80\xe4\xb8\xad", "\xf0\x9f\x98\x80\xe4\xb8\xad");
}

/* A bubble sort of so many marks would not end within the test's time. */
static void a_long_run_of_marks_is_ordered(void **state)
{
    enum { PAIRS = 500000 };
    char *text = malloc(1 + 4 * PAIRS);
    struct bytes found = {0};

    (void)state;
    assert_non_null(text);
    text[0] = 'x';
    for (size_t i = 0; i < PAIRS; i++)
        memcpy(text + 1 + 4 * i, "\xcc\x81\xcc\xa3", 4); /* above (230), below (220) */
    assert_int_equal(nfc_append(text, 1 + 4 * PAIRS, &found), TCA_OK);
    assert_int_equal(found.size, 1 + 4 * PAIRS);
    for (size_t i = 0; i < 2 * PAIRS; i++)
        assert_memory_equal(found.data + 1 + 2 * i, i < PAIRS ? "\xcc\xa3" : "\xcc\x81", 2);
    free(text);
    bytes_free(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts_come_out_composed),
        cmocka_unit_test(a_long_run_of_marks_is_ordered),
    };
    return cmocka_run_group_tests_name("nfc", tests, NULL, NULL);
}
