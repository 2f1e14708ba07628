#include "tests/support/check.h"

#include "base/error.h"

#include <string.h>

static void text_is_one_line_of_whole_characters(void **state)
{
    char longest[TCA_ERROR_TEXT_BYTES + 8];
    struct tca_error error;

    (void)state;
    assert_int_equal(tca_fail(&error, TCA_ERR_INVALID, "field %s: %d\nnext", "x", 7),
                     TCA_ERR_INVALID);
    assert_string_equal(error.text, "field x: 7?next");

    /* The cut falls inside the last two-byte character. */
    memset(longest, 'a', sizeof(longest));
    memcpy(longest + TCA_ERROR_TEXT_BYTES - 2, "\xc3\xa9", 3);
    tca_fail(&error, TCA_ERR_INVALID, "%s", longest);
    assert_int_equal(strlen(error.text), TCA_ERROR_TEXT_BYTES - 2);
    assert_int_equal(tca_fail(NULL, TCA_ERR_IO, "nobody listens"), TCA_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_is_one_line_of_whole_characters)};
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
