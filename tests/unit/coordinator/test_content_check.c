#include "tests/support/check.h"

#include "coordinator/content_check.h"

#include <string.h>

/* Push `bytes` in pieces of `step`; the status of the first that is refused. */
static enum tca_status push_all(struct content_check *check, const void *data, size_t bytes,
                                size_t step, struct tca_error *error)
{
    for (size_t at = 0; at < bytes; at += step)
        TCA_TRY(content_check_push(check, (const char *)data + at,
                                   bytes - at < step ? bytes - at : step, error));
    return content_check_finish(check, error);
}

static void text_is_accepted_however_it_is_cut(void **state)
{
    static const char text[] = "plain, \xc3\xa9, \xe2\x82\xac, \xf0\x9f\x98\x80 and \0 too";

    (void)state;
    for (size_t step = 1; step < sizeof(text); step++) {
        struct content_check check = {.encoding = CONTENT_TEXT_UTF8};

        assert_int_equal(push_all(&check, text, sizeof(text) - 1, step, NULL), TCA_OK);
        assert_int_equal(check.offset, sizeof(text) - 1);
    }
}

static void a_bad_byte_is_named_however_the_text_is_cut(void **state)
{
    static const char *const bad[] = {
        "0123456\xff and more",
        "0123456\xe2\x28\xa1",
        "0123456\xf0\x9f\x98z",
        "0123456\xed\xa0\x80",
    };
    struct tca_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        for (size_t step = 1; step <= strlen(bad[i]); step++) {
            struct content_check check = {.encoding = CONTENT_TEXT_UTF8};

            assert_int_equal(push_all(&check, bad[i], strlen(bad[i]), step, &error),
                             TCA_ERR_INVALID);
            assert_string_equal(error.text, "data: no UTF-8 at byte 7");
        }
}

static void a_refused_piece_changes_nothing(void **state)
{
    struct content_check check = {.encoding = CONTENT_TEXT_UTF8};

    (void)state;
    assert_int_equal(content_check_push(&check, "ab\xe2\x82", 4, NULL), TCA_OK);
    assert_int_equal(content_check_push(&check, "zz", 2, NULL), TCA_ERR_INVALID);
    assert_int_equal(check.offset, 4);
    assert_int_equal(content_check_push(&check, "\xac.", 2, NULL), TCA_OK);
    assert_int_equal(content_check_finish(&check, NULL), TCA_OK);
}

static void empty_and_unfinished_content_is_refused(void **state)
{
    struct content_check text = {.encoding = CONTENT_TEXT_UTF8};
    struct content_check ids = {.encoding = CONTENT_TOKEN_IDS_U32LE, .vocab = 10};
    struct tca_error error;

    (void)state;
    assert_int_equal(content_check_finish(&text, &error), TCA_ERR_INVALID);
    assert_int_equal(content_check_push(&text, "a\xe2\x82", 3, &error), TCA_OK);
    assert_int_equal(content_check_finish(&text, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "data: ends inside a UTF-8 character at byte 1");
    assert_int_equal(content_check_push(&ids, "\1\0\0\0\2", 5, &error), TCA_OK);
    assert_int_equal(content_check_finish(&ids, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "5 bytes"));
}

static void a_token_id_outside_the_vocabulary_is_named_with_its_index(void **state)
{
    static const uint8_t ids[] = {9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0};
    struct tca_error error;

    (void)state;
    for (size_t step = 1; step <= sizeof(ids); step++) {
        struct content_check check = {.encoding = CONTENT_TOKEN_IDS_U32LE, .vocab = 10};

        assert_int_equal(push_all(&check, ids, sizeof(ids), step, &error), TCA_ERR_INVALID);
        assert_string_equal(error.text, "data: token id 10 at index 2 is outside the vocabulary, "
                                        "allowed: 0 to 9");
        check = (struct content_check){.encoding = CONTENT_TOKEN_IDS_U32LE, .vocab = 11};
        assert_int_equal(push_all(&check, ids, sizeof(ids), step, &error), TCA_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_accepted_however_it_is_cut),
        cmocka_unit_test(a_bad_byte_is_named_however_the_text_is_cut),
        cmocka_unit_test(a_refused_piece_changes_nothing),
        cmocka_unit_test(empty_and_unfinished_content_is_refused),
        cmocka_unit_test(a_token_id_outside_the_vocabulary_is_named_with_its_index),
    };
    return cmocka_run_group_tests_name("content_check", tests, NULL, NULL);
}
