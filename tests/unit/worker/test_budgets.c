#include "tests/support/check.h"

#include "kernels/select.h"
#include "worker/budgets.h"

#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, KV_HEADS = 3, HEADS = LAYERS * KV_HEADS, POINTS = 5, WINDOW = 256 };

/* Head h keeps mass share^(1 / (h + 1)): later heads gain more from little. */
static int setup(void **state)
{
    static const float shares[POINTS] = {0.05F, 0.1F, 0.25F, 0.5F, 1.0F};
    struct profile *profile = calloc(1, sizeof(*profile));

    *state = profile;
    if (profile == NULL)
        return -1;
    *profile = (struct profile){
        .layers = LAYERS, .kv_heads = KV_HEADS, .points = POINTS, .lengths = 1, .length = {8192}};
    memcpy(profile->share, shares, sizeof(shares));
    if (profile_allocate(profile, false) != TCA_OK)
        return -1;
    for (int table = 0; table < PROFILE_TABLES; table++)
        for (int head = 0; head < HEADS; head++)
            for (int i = 0; i < POINTS; i++)
                profile->mass[table][head * POINTS + i] =
                    1.0F - (1.0F - shares[i]) * (1.0F - 0.15F * (float)head * (shares[i] < 1.0F));
    return 0;
}

static int teardown(void **state)
{
    profile_close(*state);
    return 0;
}

static int64_t total(const int64_t *budgets)
{
    int64_t sum = 0;

    for (int head = 0; head < HEADS; head++)
        sum += budgets[head];
    return sum;
}

static void without_a_profile_every_head_gets_the_mean(void **state)
{
    const struct budget_request request = {
        .table = PROFILE_QUESTION, .keep = 0.1, .tokens = 100000, .window = WINDOW};
    int64_t budgets[HEADS];

    (void)state;
    assert_int_equal(budgets_make(NULL, &request, LAYERS, KV_HEADS, budgets), TCA_OK);
    for (int head = 0; head < HEADS; head++)
        assert_int_equal(budgets[head], 10000);
}

static void the_mean_is_spent_and_the_floor_holds(void **state)
{
    static const double keeps[] = {0.001, 0.01, 0.03, 0.1, 0.3, 0.77, 1.0};

    for (size_t i = 0; i < sizeof(keeps) / sizeof(*keeps); i++)
        for (int64_t tokens = 100; tokens <= 1000000; tokens *= 10) {
            const struct budget_request request = {
                .table = PROFILE_PREFILL, .keep = keeps[i], .tokens = tokens, .window = WINDOW};
            const int64_t even = select_budget(keeps[i], tokens, WINDOW);
            const int64_t least = select_budget(0.0, tokens, WINDOW);
            int64_t budgets[HEADS];

            assert_int_equal(budgets_make(*state, &request, LAYERS, KV_HEADS, budgets), TCA_OK);
            assert_int_equal(total(budgets), even * HEADS);
            for (int head = 0; head < HEADS; head++) {
                assert_true(budgets[head] >= least && budgets[head] >= even / 2);
                assert_true(budgets[head] <= tokens);
            }
        }
}

static void heads_whose_curve_rises_most_get_more(void **state)
{
    const struct budget_request request = {
        .table = PROFILE_QUESTION, .keep = 0.2, .tokens = 100000, .window = WINDOW};
    int64_t budgets[HEADS];

    /* Beyond the start of 10 %, head 0's hull rises with slope 1, the last one's with less. */
    assert_int_equal(budgets_make(*state, &request, LAYERS, KV_HEADS, budgets), TCA_OK);
    assert_true(budgets[0] > budgets[HEADS - 1]);
    assert_int_equal(budgets[HEADS - 1], 10000);
}

static void the_budget_for_a_mass_is_read_off_the_curve(void **state)
{
    /* Head 0: mass == share. */
    assert_in_range(budget_for_mass(*state, PROFILE_QUESTION, 0, 0, 0.375, 100000, WINDOW), 37499,
                    37501);
    assert_in_range(budget_for_mass(*state, PROFILE_QUESTION, 0, 0, 0.05, 100000, WINDOW), 4999,
                    5001);
    assert_int_equal(budget_for_mass(*state, PROFILE_QUESTION, 0, 0, 1.0, 100000, WINDOW), 100000);
    assert_int_equal(budget_for_mass(*state, PROFILE_QUESTION, 0, 0, 0.001, 100000, WINDOW),
                     64 + WINDOW + 512);
    /* A head that begins at 0.05 share with more mass needs no more than that. */
    assert_true(budget_for_mass(*state, PROFILE_QUESTION, 1, 2, 0.3, 100000, WINDOW) <= 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_profile_every_head_gets_the_mean),
        cmocka_unit_test(the_mean_is_spent_and_the_floor_holds),
        cmocka_unit_test(heads_whose_curve_rises_most_get_more),
        cmocka_unit_test(the_budget_for_a_mass_is_read_off_the_curve),
    };
    return cmocka_run_group_tests_name("budgets", tests, setup, teardown);
}
