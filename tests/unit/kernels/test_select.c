/* Properties every rule must have, and each rule against a slow restatement of its definition. */
#include "tests/support/check.h"

#include "kernels/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_MAX = 5000, BLOCKS_MAX = TOKENS_MAX / SELECT_BLOCK_TOKENS + 1 };

struct scene {
    float tokens[TOKENS_MAX], masses[BLOCKS_MAX], shares[SELECT_TCA_SIZES];
    struct select_input input;
    int32_t kept[TOKENS_MAX];
    int64_t count;
    uint8_t is_kept[TOKENS_MAX];
    void *scratch;
};

static uint32_t noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Few distinct scores, so that ties are everywhere; some NaN. */
static void fill(struct scene *scene, int64_t tokens, int64_t window, uint32_t seed)
{
    for (int64_t i = 0; i < tokens; i++)
        scene->tokens[i] = noise(&seed) % 97 == 0 ? NAN : (float)(noise(&seed) % 64) / 64.0f;
    for (int64_t j = 0; j < select_blocks(tokens); j++)
        scene->masses[j] = (float)(noise(&seed) % 16) / 16.0f;
    select_tca_shares(2.0, 1.5, scene->shares);
    scene->input = (struct select_input){.tokens = tokens,
                                         .window = window,
                                         .token_scores = scene->tokens,
                                         .block_masses = scene->masses,
                                         .tca_shares = scene->shares};
}

static void run(struct scene *scene, enum select_rule rule, int64_t budget)
{
    assert_int_equal(
        select_run(rule, &scene->input, budget, scene->scratch, scene->kept, &scene->count),
        TCA_OK);
    memset(scene->is_kept, 0, sizeof(scene->is_kept));
    for (int64_t i = 0; i < scene->count; i++) {
        assert_true(i == 0 || scene->kept[i] > scene->kept[i - 1]);
        assert_in_range(scene->kept[i], 0, scene->input.tokens - 1);
        scene->is_kept[scene->kept[i]] = 1;
    }
}

static int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    *state = scene;
    if (scene == NULL)
        return -1;
    scene->scratch = malloc(select_scratch_bytes(TOKENS_MAX));
    return scene->scratch == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;

    free(scene->scratch);
    free(scene);
    return 0;
}

static const int64_t lengths[] = {1, 63, 64, 65, 127, 300, 1000, 1087, 1088, 1089, 3001, 4999};
enum { LENGTHS = sizeof(lengths) / sizeof(*lengths) };

static void sinks_and_window_stay_within_the_budget(void **state)
{
    struct scene *scene = *state;

    for (int n = 0; n < LENGTHS; n++)
        for (int rule = 0; rule < SELECT_RULE_COUNT; rule++)
            for (int64_t window = 0; window <= 1024; window += 256) {
                const int64_t budget = select_budget(0.3, lengths[n], window);

                fill(scene, lengths[n], window, (uint32_t)(n * 31 + rule));
                run(scene, (enum select_rule)rule, budget);
                if (rule != SELECT_DENSE)
                    assert_true(scene->count <= budget);
                for (int64_t i = 0; i < lengths[n]; i++)
                    if (i < SELECT_BLOCK_TOKENS || i >= lengths[n] - window)
                        assert_true(scene->is_kept[i]);
            }
}

static void a_budget_of_everything_keeps_everything(void **state)
{
    struct scene *scene = *state;

    for (int rule = 0; rule < SELECT_RULE_COUNT; rule++) {
        fill(scene, 3001, 256, 5);
        run(scene, (enum select_rule)rule, 3001);
        assert_int_equal(scene->count, 3001);
    }
}

static void a_budget_below_sinks_and_window_is_refused(void **state)
{
    struct scene *scene = *state;

    fill(scene, 3000, 256, 1);
    for (int rule = SELECT_WINDOW; rule < SELECT_RULE_COUNT; rule++)
        assert_int_equal(select_run((enum select_rule)rule, &scene->input, 64 + 255, scene->scratch,
                                    scene->kept, &scene->count),
                         TCA_ERR_INVALID);
}

static void a_larger_budget_keeps_a_superset(void **state)
{
    static const enum select_rule rules[] = {SELECT_POOLED, SELECT_BLOCK, SELECT_WINDOW};
    struct scene *scene = *state;
    uint8_t before[TOKENS_MAX];

    for (int r = 0; r < 3; r++) {
        fill(scene, 3001, 256, 77);
        memset(before, 0, sizeof(before));
        for (int64_t budget = 64 + 256; budget <= 3001; budget += 37) {
            run(scene, rules[r], budget);
            for (int64_t i = 0; i < 3001; i++)
                assert_true(scene->is_kept[i] >= before[i]);
            memcpy(before, scene->is_kept, sizeof(before));
        }
    }
}

static float slow_pool(const float *scores, int64_t tokens, int64_t at)
{
    float best = 0.0f;

    for (int64_t i = at - SELECT_POOL_RADIUS; i <= at + SELECT_POOL_RADIUS; i++)
        if (i >= 0 && i < tokens && scores[i] > best)
            best = scores[i];
    return best;
}

static void pooling_is_the_maximum_of_33(void **state)
{
    struct scene *scene = *state;
    static float pooled[TOKENS_MAX];

    for (int n = 0; n < LENGTHS; n++) {
        fill(scene, lengths[n], 0, (uint32_t)n);
        select_pool(scene->tokens, lengths[n], pooled);
        for (int64_t i = 0; i < lengths[n]; i++)
            assert_true(pooled[i] == slow_pool(scene->tokens, lengths[n], i));
    }
}

/* Kept exactly when fewer than `count` candidates come before it: larger key, or equal and
 * earlier. */
static void pooled_keeps_the_largest_with_ties_to_the_lowest(void **state)
{
    enum { TOKENS = 1500, WINDOW = 128, BUDGET = 900 };
    struct scene *scene = *state;
    const int64_t count = BUDGET - SELECT_BLOCK_TOKENS - WINDOW;
    static float pooled[TOKENS_MAX];

    fill(scene, TOKENS, WINDOW, 9);
    for (int i = 0; i < TOKENS; i++) /* sparse peaks, or pooling makes all equal */
        if (i % 41 != 0)
            scene->tokens[i] /= 64.0f;
    select_pool(scene->tokens, TOKENS, pooled);
    run(scene, SELECT_POOLED, BUDGET);
    assert_int_equal(scene->count, BUDGET);
    for (int i = SELECT_BLOCK_TOKENS; i < TOKENS - WINDOW; i++) {
        int64_t ahead = 0;

        for (int j = SELECT_BLOCK_TOKENS; j < TOKENS - WINDOW; j++)
            ahead += pooled[j] > pooled[i] || (pooled[j] == pooled[i] && j < i);
        assert_int_equal(scene->is_kept[i], ahead < count);
    }
}

static void block_keeps_whole_blocks_of_largest_mass(void **state)
{
    enum { TOKENS = 3001, WINDOW = 200, BUDGET = 1000 };
    struct scene *scene = *state;
    const int64_t last = select_blocks(TOKENS - WINDOW);
    const int64_t count = (BUDGET - SELECT_BLOCK_TOKENS - WINDOW) / SELECT_BLOCK_TOKENS;

    fill(scene, TOKENS, WINDOW, 3);
    run(scene, SELECT_BLOCK, BUDGET);
    for (int64_t i = 1; i < last; i++) {
        int64_t ahead = 0;

        for (int64_t j = 1; j < last; j++)
            ahead += scene->masses[j] > scene->masses[i] ||
                     (scene->masses[j] == scene->masses[i] && j < i);
        for (int64_t t = i * SELECT_BLOCK_TOKENS;
             t < (i + 1) * SELECT_BLOCK_TOKENS && t < TOKENS - WINDOW; t++)
            assert_int_equal(scene->is_kept[t], ahead < count);
    }
}

static int block_count(const struct scene *scene, int64_t block)
{
    int count = 0;

    for (int64_t i = block * SELECT_BLOCK_TOKENS; i < (block + 1) * SELECT_BLOCK_TOKENS; i++)
        count += scene->is_kept[i];
    return count;
}

static void tca_gives_redundant_blocks_fewest_tokens(void **state)
{
    enum { BLOCKS = 60, TOKENS = BLOCKS * SELECT_BLOCK_TOKENS };
    struct scene *scene = *state;
    int sizes[SELECT_BLOCK_TOKENS + 1] = {0};
    float simpson[BLOCKS];
    uint32_t seed = 4;

    fill(scene, TOKENS, SELECT_BLOCK_TOKENS, 4);
    for (int i = 0; i < TOKENS; i++)
        scene->tokens[i] =
            powf((float)(noise(&seed) % 1000) / 1000.0f, 1.0f + (float)(i / SELECT_BLOCK_TOKENS));
    select_simpson(scene->tokens, TOKENS, simpson);
    run(scene, SELECT_TCA, TOKENS - 1);
    for (int j = 1; j < BLOCKS - 1; j++) {
        const int count = block_count(scene, j);

        sizes[count]++;
        for (int k = 1; k < BLOCKS - 1; k++)
            if (simpson[k] < simpson[j])
                assert_true(block_count(scene, k) >= count);
    }
    for (int k = 0; k < SELECT_TCA_SIZES; k++)
        assert_true(fabs(sizes[1 << k] - (double)scene->shares[k] * (BLOCKS - 2)) <= 1.0);

    scene->input.redundancy = SELECT_REDUNDANCY_MASS;
    run(scene, SELECT_TCA, TOKENS - 1);
    for (int j = 1; j < BLOCKS - 1; j++)
        for (int k = 1; k < BLOCKS - 1; k++)
            if (scene->masses[k] > scene->masses[j])
                assert_true(block_count(scene, k) >= block_count(scene, j));
}

static void simpson_is_one_when_concentrated_and_least_when_even(void **state)
{
    float scores[130], out[3];

    (void)state;
    for (int i = 0; i < 64; i++)
        scores[i] = 0.25f;
    memset(scores + 64, 0, 66 * sizeof(*scores));
    scores[70] = 0.5f;
    select_simpson(scores, 130, out);
    assert_true(fabsf(out[0] - 1.0f / 64.0f) < 1e-6f);
    assert_true(out[1] == 1.0f);
    assert_true(out[2] == 1.0f);
}

static void tca_shares_keep_what_was_asked(void **state)
{
    (void)state;
    for (double keep = 0.02; keep < 0.99; keep += 0.05)
        for (double sigma = 0.1; sigma < 4.0; sigma *= 2.0) {
            float shares[SELECT_TCA_SIZES];
            double kept = 0.0, sum = 0.0;

            select_tca_shares(select_tca_mu(keep, sigma), sigma, shares);
            for (int k = 0; k < SELECT_TCA_SIZES; k++) {
                kept += (double)shares[k] * (double)(1 << k) / SELECT_BLOCK_TOKENS;
                sum += (double)shares[k];
            }
            assert_true(fabs(sum - 1.0) < 1e-5);
            assert_true(fabs(kept - keep) < 1e-3);
        }
}

static void least_budget_leaves_room_to_choose(void **state)
{
    (void)state;
    assert_int_equal(select_budget(0.03, 32768, 1024), 64 + 1024 + 512);
    assert_int_equal(select_budget(0.03, 131072, 1024), 3932); /* rounded down */
    assert_int_equal(select_budget(0.5, 100, 1024), 100);
    assert_int_equal(select_budget(1.0, 999999, 1024), 999999);
}

static void names_are_found_and_others_are_not(void **state)
{
    static const char *const names[SELECT_RULE_COUNT] = {"dense", "window", "block", "pooled",
                                                         "tca"};
    struct select_method method;

    (void)state;
    for (int i = 0; i < SELECT_RULE_COUNT; i++) {
        assert_true(select_method_parse(names[i], strlen(names[i]), &method));
        assert_int_equal(method.rule, i);
        assert_int_equal(method.observes_last, i == SELECT_TCA);
    }
    assert_true(select_method_parse("tca-mass", 8, &method));
    assert_int_equal(method.rule, SELECT_TCA);
    assert_int_equal(method.redundancy, SELECT_REDUNDANCY_MASS);
    assert_false(method.observes_last);
    assert_true(select_method_parse("tca-simpson", 11, &method));
    assert_int_equal(method.redundancy, SELECT_REDUNDANCY_SIMPSON);
    assert_false(select_method_parse("blocks", 6, &method));
    assert_false(select_method_parse("block\0", 6, &method));
    assert_false(select_method_parse("", 0, &method));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sinks_and_window_stay_within_the_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(a_budget_of_everything_keeps_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(a_budget_below_sinks_and_window_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_larger_budget_keeps_a_superset, setup, teardown),
        cmocka_unit_test_setup_teardown(pooling_is_the_maximum_of_33, setup, teardown),
        cmocka_unit_test_setup_teardown(pooled_keeps_the_largest_with_ties_to_the_lowest, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(block_keeps_whole_blocks_of_largest_mass, setup, teardown),
        cmocka_unit_test_setup_teardown(tca_gives_redundant_blocks_fewest_tokens, setup, teardown),
        cmocka_unit_test(simpson_is_one_when_concentrated_and_least_when_even),
        cmocka_unit_test(tca_shares_keep_what_was_asked),
        cmocka_unit_test(least_budget_leaves_room_to_choose),
        cmocka_unit_test(names_are_found_and_others_are_not),
    };
    return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
