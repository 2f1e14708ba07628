#include "tests/support/check.h"

#include "base/bf16.h"
#include "comm/reduce.h"

#include <math.h>

static void sum_is_added_by_the_tree(void **state)
{
    const struct comm_group group = {.ranks = 3};
    float a[3] = {1e8F, 1, 2}, b[3] = {-1e8F, 2, 3}, c[3] = {1, 3, 4};
    const void *sources[] = {a, b, c};

    (void)state;
    reduce_sum(c, sources, &group, 3, KERNEL_F32); /* in place of one source */
    assert_true(c[0] == 1.0F && c[1] == 6.0F && c[2] == 9.0F);
}

/* Parts 0 .. 3 on 4 ranks, 3 (2 + 1 + 1) and 2: the same bits, which the order of the ranks would
 * not give. */
static void the_number_of_ranks_changes_no_bit(void **state)
{
    enum { COUNT = 1000 };
    static float part[4][COUNT], low[COUNT], high[COUNT], four[COUNT], three[COUNT], two[COUNT];
    const void *on_four[] = {part[0], part[1], part[2], part[3]};
    const void *on_three[] = {low, part[2], part[3]}, *on_two[] = {low, high};
    const struct comm_group group_four = {.ranks = 4};
    const struct comm_group group_three = {.ranks = 3, .parts = {2, 1, 1}};
    const struct comm_group group_two = {.ranks = 2, .parts = {2, 2}};
    const struct comm_group by_rank = {.ranks = 3};
    bool is_order_seen = false;

    (void)state;
    for (int i = 0; i < COUNT; i++) {
        for (int p = 0; p < 4; p++)
            part[p][i] = sinf((float)(p * COUNT + i)) * powf(10.0F, (float)((p + i) % 5));
        low[i] = part[0][i] + part[1][i];
        high[i] = part[2][i] + part[3][i];
    }
    reduce_sum(four, on_four, &group_four, COUNT, KERNEL_F32);
    reduce_sum(three, on_three, &group_three, COUNT, KERNEL_F32);
    reduce_sum(two, on_two, &group_two, COUNT, KERNEL_F32);
    assert_memory_equal(four, two, sizeof(four));
    assert_memory_equal(three, two, sizeof(three));
    reduce_sum(three, on_three, &by_rank, COUNT, KERNEL_F32);
    for (int i = 0; i < COUNT; i++)
        is_order_seen = is_order_seen || three[i] != two[i];
    assert_true(is_order_seen);
}

static void parts_that_no_rank_holds_whole_are_still_summed(void **state)
{
    const struct comm_group group = {.ranks = 3, .parts = {3, 3, 2}};
    float a = 1, b = 2, c = 4, sum;
    const void *sources[] = {&a, &b, &c};

    (void)state;
    reduce_sum(&sum, sources, &group, 1, KERNEL_F32);
    assert_true(sum == 7.0F);
}

static void bf16_is_rounded_once_after_the_sum(void **state)
{
    /* 256 + 1 + 1 is 258 in bf16's steps of 2; rounding after each addition would lose both. */
    uint16_t a = bf16_from_float(256), b = bf16_from_float(1), c = bf16_from_float(1);
    const void *sources[] = {&a, &b, &c};
    const struct comm_group group = {.ranks = 3, .parts = {1, 2, 1}};

    (void)state;
    reduce_sum(&a, sources, &group, 1, KERNEL_BF16);
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
        cmocka_unit_test(sum_is_added_by_the_tree),
        cmocka_unit_test(the_number_of_ranks_changes_no_bit),
        cmocka_unit_test(parts_that_no_rank_holds_whole_are_still_summed),
        cmocka_unit_test(bf16_is_rounded_once_after_the_sum),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(slices_cover_everything_once),
    };
    return cmocka_run_group_tests_name("reduce", tests, NULL, NULL);
}
