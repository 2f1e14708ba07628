#include "tests/support/check.h"

#include "base/bf16.h"
#include "comm/reduce.h"

#include <math.h>

static void sum_is_added_in_the_order_of_the_ranks(void **state)
{
    float a[3] = {1e8F, 1, 2}, b[3] = {-1e8F, 2, 3}, c[3] = {1, 3, 4};
    const void *sources[] = {a, b, c};

    (void)state;
    reduce_sum(c, sources, 3, 3, KERNEL_F32); /* in place of one source */
    assert_true(c[0] == 1.0F && c[1] == 6.0F && c[2] == 9.0F);
}

static void bf16_is_rounded_once_after_the_sum(void **state)
{
    /* 256 + 1 + 1 is 258 in bf16's steps of 2; rounding after each addition would lose both. */
    uint16_t a = bf16_from_float(256), b = bf16_from_float(1), c = bf16_from_float(1);
    const void *sources[] = {&a, &b, &c};

    (void)state;
    reduce_sum(&a, sources, 3, 1, KERNEL_BF16);
    assert_true(bf16_to_float(a) == 258.0F);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_from_float(1.0F), 0x3f80);
    assert_int_equal(bf16_from_float(1.00390625F), 0x3f80);  /* a tie, down to even */
    assert_int_equal(bf16_from_float(1.01171875F), 0x3f82);  /* a tie, up to even */
    assert_int_equal(bf16_from_float(1.003906369F), 0x3f81); /* just over the tie */
    assert_int_equal(bf16_from_float(-1.003906369F), 0xbf81);
    assert_int_equal(bf16_from_float(3.4e38F), 0x7f80); /* overflow */
    assert_int_equal(bf16_from_float(INFINITY), 0x7f80);
    assert_int_equal(bf16_from_float(-INFINITY), 0xff80);
    assert_int_equal(bf16_from_float(-0.0F), 0x8000);
    assert_int_equal(bf16_from_float(1e-45F), 0);           /* the least denormal */
    assert_int_equal(bf16_from_float(9.1835e-41F), 0x0001); /* bf16's least denormal */
    assert_true(isnan(bf16_to_float(bf16_from_float(NAN))));
    for (uint32_t bits = 0x7f800001; bits < 0x7f900000; bits += 12345) {
        float value;

        memcpy(&value, &bits, sizeof(value));
        assert_true(isnan(bf16_to_float(bf16_from_float(value))));
    }
}

static void slices_cover_everything_once(void **state)
{
    static const size_t counts[] = {0, 1, 16, 17, 100, 8193, 589824};

    (void)state;
    for (int ranks = 1; ranks <= 9; ranks++)
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            assert_int_equal(reduce_slice_first(counts[i], 0, ranks), 0);
            assert_int_equal(reduce_slice_first(counts[i], ranks, ranks), counts[i]);
            for (int rank = 0; rank < ranks; rank++)
                assert_true(reduce_slice_first(counts[i], rank, ranks) <=
                            reduce_slice_first(counts[i], rank + 1, ranks));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sum_is_added_in_the_order_of_the_ranks),
        cmocka_unit_test(bf16_is_rounded_once_after_the_sum),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(slices_cover_everything_once),
    };
    return cmocka_run_group_tests_name("reduce", tests, NULL, NULL);
}
