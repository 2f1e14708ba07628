/* Which documents a model is calibrated on. */
#include "tests/support/check.h"

#include "calibrate/calibrate.h"

#include <string.h>

static void lengths_rise_to_the_longest(void **state)
{
    static const struct {
        int64_t longest;
        int positions, count;
        int64_t last;
    } cases[] = {
        {0, 1 << 20, 3, 131072},        {0, 8192, 1, 7680},
        {0, 16384, 2, 15872},           {8192, 1 << 20, 1, 8192},
        {1000000, 1 << 20, 3, 1000000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int64_t lengths[PROFILE_LENGTHS_MAX];
        struct tca_error error;
        int count;

        assert_int_equal(
            calibrate_lengths(cases[i].longest, cases[i].positions, lengths, &count, &error),
            TCA_OK);
        assert_int_equal(count, cases[i].count);
        assert_int_equal(lengths[count - 1], cases[i].last);
        for (int j = 1; j < count; j++)
            assert_true(lengths[j] > lengths[j - 1]);
    }
}

static void a_length_that_does_not_fit_is_refused_with_its_range(void **state)
{
    int64_t lengths[PROFILE_LENGTHS_MAX];
    struct tca_error error;
    int count;

    (void)state;
    assert_int_equal(calibrate_lengths(7681, 8192, lengths, &count, &error), TCA_ERR_RANGE);
    assert_non_null(strstr(error.text, "--longest: value 7681, allowed: 2304 to 7680"));
    assert_int_equal(calibrate_lengths(2303, 8192, lengths, &count, &error), TCA_ERR_RANGE);
    assert_int_equal(calibrate_lengths(0, 2815, lengths, &count, &error), TCA_ERR_RANGE);
    assert_non_null(strstr(error.text, "2815 positions"));
    assert_int_equal(calibrate_lengths(0, 2816, lengths, &count, &error), TCA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_rise_to_the_longest),
        cmocka_unit_test(a_length_that_does_not_fit_is_refused_with_its_range),
    };
    return cmocka_run_group_tests_name("lengths", tests, NULL, NULL);
}
