#include "tests/support/check.h"

#include "client/format.h"

#include <string.h>

static void counts_have_separators(void **state)
{
    char text[FORMAT_BYTES];

    (void)state;
    format_count(0, text);
    assert_string_equal(text, "0");
    format_count(999, text);
    assert_string_equal(text, "999");
    format_count(1000, text);
    assert_string_equal(text, "1,000");
    format_count(1234567, text);
    assert_string_equal(text, "1,234,567");
    format_count(UINT64_MAX, text);
    assert_string_equal(text, "18,446,744,073,709,551,615");
}

static void sizes_take_the_largest_unit_that_reads_well(void **state)
{
    char text[FORMAT_BYTES];

    (void)state;
    format_size(1023, text);
    assert_string_equal(text, "1023 B");
    format_size(1024, text);
    assert_string_equal(text, "1.0 KiB");
    format_size(1572864, text);
    assert_string_equal(text, "1.5 MiB");
    format_size(1048575, text);
    assert_string_equal(text, "1.0 MiB");
    format_size(UINT64_MAX, text);
    assert_string_equal(text, "16.0 EiB");
}

static void rates_keep_three_digits(void **state)
{
    char text[FORMAT_BYTES];

    (void)state;
    format_rate(0.421, text);
    assert_string_equal(text, "0.42");
    format_rate(12.34, text);
    assert_string_equal(text, "12.3");
    format_rate(99.97, text);
    assert_string_equal(text, "100");
    format_rate(1234.5, text);
    assert_string_equal(text, "1,235");
    format_rate(0.0 / 1.0, text);
    assert_string_equal(text, "0");
    format_rate(1e30, text);
    assert_string_equal(text, "1,000,000,000,000,000,000");
}

static void durations_grow_from_milliseconds_to_hours(void **state)
{
    char text[FORMAT_BYTES];

    (void)state;
    format_duration(850, text);
    assert_string_equal(text, "850 ms");
    format_duration(12399, text);
    assert_string_equal(text, "12.3 s");
    format_duration(62000, text);
    assert_string_equal(text, "1:02");
    format_duration(3723000, text);
    assert_string_equal(text, "1:02:03");
    format_duration(UINT64_MAX, text);
}

static void times_are_utc_and_absent_ones_a_dash(void **state)
{
    char text[FORMAT_BYTES];

    (void)state;
    format_time(1769860800, text);
    assert_string_equal(text, "2026-01-31 12:00:00Z");
    format_time(0, text);
    assert_string_equal(text, "-");
    format_time(INT64_MAX, text);
    assert_string_equal(text, "-");
}

static void check_escaped(const char *text, size_t bytes, enum format_breaks breaks,
                          const char *expected)
{
    struct bytes out = {0};

    assert_int_equal(format_escaped(&out, text, bytes, breaks), TCA_OK);
    assert_int_equal(out.size, strlen(expected));
    assert_memory_equal(out.data, expected, out.size);
    bytes_free(&out);
}

static void control_characters_cannot_reach_a_terminal(void **state)
{
    (void)state;
    check_escaped("a\x1b[2Jb", 6, FORMAT_KEEP_BREAKS, "a\\x1b[2Jb");
    check_escaped("a\0b\x7f\r", 5, FORMAT_KEEP_BREAKS, "a\\x00b\\x7f\\x0d");
    check_escaped("a\tb\n", 4, FORMAT_KEEP_BREAKS, "a\tb\n");
    check_escaped("a\tb\n", 4, FORMAT_ESCAPE_BREAKS, "a\\x09b\\x0a");
    /* CSI as one C1 character, then the first character after that range. */
    check_escaped("\xc2\x9b\xc2\xa0", 4, FORMAT_KEEP_BREAKS, "\\u009b\xc2\xa0");
    check_escaped("\xc3\xa9\xf0\x9f\x98\x80", 6, FORMAT_KEEP_BREAKS, "\xc3\xa9\xf0\x9f\x98\x80");
    check_escaped("\x9b\xc3", 2, FORMAT_KEEP_BREAKS, "\\x9b\\xc3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_have_separators),
        cmocka_unit_test(sizes_take_the_largest_unit_that_reads_well),
        cmocka_unit_test(rates_keep_three_digits),
        cmocka_unit_test(durations_grow_from_milliseconds_to_hours),
        cmocka_unit_test(times_are_utc_and_absent_ones_a_dash),
        cmocka_unit_test(control_characters_cannot_reach_a_terminal),
    };
    return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
