/* The two ways between the order of a sequence and that of its stripes, against the rule itself:
 * token i is in unit i / unit, which stripe (i / unit) % stripes holds. */
#include "tests/support/check.h"

#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS_MOST = 1000, STRIPES_MOST = 4, GUARD = -7 };

static const int64_t totals[] = {0, 1, 63, 64, 65, 128, 129, 500, TOKENS_MOST};
static const int64_t units[] = {1, 7, 64, 256, 2000}; /* the last: one unit */

enum {
    TOTALS = sizeof(totals) / sizeof(totals[0]),
    UNITS = sizeof(units) / sizeof(units[0]),
};

/* Where each token is, the slow way: row_out[i] on stripe_out[i]. */
static void deal_out(const struct kernel_stripes *stripes, int64_t total, int *stripe_out,
                     int32_t *row_out)
{
    int32_t held[STRIPES_MOST] = {0};

    for (int64_t i = 0; i < total; i++) {
        stripe_out[i] = (int)(i / stripes->unit % stripes->stripes);
        row_out[i] = held[stripe_out[i]]++;
    }
}

static void check_interleave(const struct kernel_stripes *stripes, int64_t total)
{
    const struct kernel_backend *backend = kernel_backend_cpu();
    static float gathered[STRIPES_MOST * TOKENS_MOST], out[TOKENS_MOST + 1];
    int stripe[TOKENS_MOST];
    int32_t row[TOKENS_MOST];

    deal_out(stripes, total, stripe, row);
    memset(gathered, 0xff, sizeof(gathered)); /* NaN: what is not read */
    for (int64_t i = 0; i < total; i++)
        gathered[stripe[i] * TOKENS_MOST + row[i]] = (float)i + 0.5F;
    out[total] = GUARD;
    assert_int_equal(backend->interleave(NULL, out, gathered, stripes, TOKENS_MOST, total), TCA_OK);
    for (int64_t i = 0; i < total; i++)
        assert_true(out[i] == (float)i + 0.5F);
    assert_true(out[total] == GUARD);
}

static void gathered_values_come_back_in_the_order_of_the_sequence(void **state)
{
    (void)state;
    for (int stripes = 1; stripes <= STRIPES_MOST; stripes++)
        for (int unit = 0; unit < UNITS; unit++)
            for (int total = 0; total < TOTALS; total++) {
                const struct kernel_stripes cut = {.stripes = stripes, .unit = units[unit]};

                check_interleave(&cut, totals[total]);
            }
}

/* Every `step`th token is kept, from the first; every stripe picks its own of them. */
static void check_pick(struct kernel_stripes stripes, int64_t total, int step)
{
    const struct kernel_backend *backend = kernel_backend_cpu();
    int32_t kept[TOKENS_MOST], picked[TOKENS_MOST + 1], row[TOKENS_MOST], count = 0, all = 0;
    int stripe[TOKENS_MOST];

    deal_out(&stripes, total, stripe, row);
    for (int32_t i = 0; i < total; i += step)
        kept[count++] = i;
    for (stripes.stripe = 0; stripes.stripe < stripes.stripes; stripes.stripe++) {
        int32_t found = GUARD, next = 0;

        for (int i = 0; i <= TOKENS_MOST; i++)
            picked[i] = GUARD;
        assert_int_equal(backend->pick(NULL, picked, &found, kept, &count, &stripes), TCA_OK);
        for (int32_t i = 0; i < count; i++)
            if (stripe[kept[i]] == stripes.stripe)
                assert_int_equal(picked[next++], row[kept[i]]);
        assert_int_equal(found, next);
        assert_int_equal(picked[next], GUARD);
        all += found;
    }
    assert_int_equal(all, count);
}

static void every_stripe_picks_its_rows_of_what_is_kept(void **state)
{
    (void)state;
    for (int stripes = 1; stripes <= STRIPES_MOST; stripes++)
        for (int unit = 0; unit < UNITS; unit++)
            for (int total = 0; total < TOTALS; total++)
                for (int step = 1; step <= 97; step += 32) {
                    const struct kernel_stripes cut = {.stripes = stripes, .unit = units[unit]};

                    check_pick(cut, totals[total], step);
                }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathered_values_come_back_in_the_order_of_the_sequence),
        cmocka_unit_test(every_stripe_picks_its_rows_of_what_is_kept),
    };
    return cmocka_run_group_tests_name("stripe_ops", tests, NULL, NULL);
}
