#include "tests/support/check.h"

#include "base/utf8.h"

#include <string.h>

static bool is_valid(const char *text)
{
    return utf8_is_valid(text, strlen(text));
}

static void well_formed_text_is_valid(void **state)
{
    (void)state;
    assert_true(utf8_is_valid("", 0));
    assert_true(utf8_is_valid("a\0b", 3));
    assert_true(is_valid("plain ASCII longer than eight bytes"));
    assert_true(is_valid("\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xef\xbf\xbf"));
    assert_true(is_valid("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"));
}

static void malformed_text_is_refused(void **state)
{
    static const char *const bad[] = {
        "\x80",
        "\xc0\xaf",
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf",
        "\xff",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "twelve bytes\xc3",
        "\xe2\x82",
        "\xe2\x28\xa1",
        "\xf0\x9f\x98",
        "eight by\xfftes",
        "\xf0\x28\x8c",
        "\xe2\x82\x28",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(is_valid(bad[i]));
}

static void whole_bytes_drop_only_an_unfinished_character(void **state)
{
    static const char smile[] = "ok\xf0\x9f\x98\x80";

    (void)state;
    assert_int_equal(utf8_whole_bytes(smile, 6), 6);
    for (size_t bytes = 2; bytes < 6; bytes++)
        assert_int_equal(utf8_whole_bytes(smile, bytes), 2);
    assert_int_equal(utf8_whole_bytes("a\xff", 2), 2);
    assert_int_equal(utf8_whole_bytes("\x80\x80\x80\x80", 4), 4);
    assert_int_equal(utf8_whole_bytes("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_text_is_valid),
        cmocka_unit_test(malformed_text_is_refused),
        cmocka_unit_test(whole_bytes_drop_only_an_unfinished_character),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
