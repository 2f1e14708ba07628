/* The line a user watches for minutes. */
#include "tests/support/check.h"

#include "calibrate/pass_progress.h"

#include <string.h>

static void a_line_tells_share_and_time_left(void **state)
{
    char line[PASS_PROGRESS_LINE_BYTES];

    (void)state;
    pass_progress_format("calibrating, 8192 tokens", 0.25, 10000, false, line);
    assert_string_equal(line, "calibrating, 8192 tokens  25 %  ETA 30 s");
    pass_progress_format("calibrating, 8192 tokens", 0.5, 200000, true, line);
    assert_string_equal(line, "calibrating, 8192 tokens  [############            ]  50 %  "
                              "ETA 3 min 20 s");
}

static void no_time_left_before_it_can_be_told(void **state)
{
    char line[PASS_PROGRESS_LINE_BYTES];

    (void)state;
    pass_progress_format("x", 0.0, 5000, false, line);
    assert_string_equal(line, "x  0 %");
    pass_progress_format("x", 1e-9, 500, false, line);
    assert_string_equal(line, "x  0 %");
}

static void the_longest_line_fits(void **state)
{
    char what[300], line[PASS_PROGRESS_LINE_BYTES];

    (void)state;
    memset(what, 'w', sizeof(what) - 1);
    what[sizeof(what) - 1] = '\0';
    pass_progress_format(what, 1e-12, INT32_MAX, true, line);
    assert_non_null(strstr(line, "ETA 16666 min 40 s"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_tells_share_and_time_left),
        cmocka_unit_test(no_time_left_before_it_can_be_told),
        cmocka_unit_test(the_longest_line_fits),
    };
    return cmocka_run_group_tests_name("pass_progress", tests, NULL, NULL);
}
