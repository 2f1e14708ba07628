/* What sums of masses become: means in the profile's tables, and the sparsest (mu, sigma). */
#include "tests/support/check.h"

#include "calibrate/curves.h"
#include "kernels/select.h"

#include <math.h>

enum { LENGTHS = 2, LAYERS = 3, KV_HEADS = 2 };

struct fixture {
    struct curves curves;
    struct profile profile;
};

/* Every sum is `samples` times a mass that names its place. */
static double mass_of(enum curve_source source, int length, int layer, int head, int point)
{
    return 0.1 * (double)source + 0.05 * length + 0.02 * layer + 0.01 * head + 0.02 * point;
}

static void fill(struct curves *curves)
{
    for (int source = 0; source < CURVE_SOURCES; source++)
        for (int length = 0; length < LENGTHS; length++) {
            const int samples = 2 + source + length;

            curves->samples[source][length] = samples;
            for (int layer = 0; layer < LAYERS; layer++)
                for (int head = 0; head < KV_HEADS; head++) {
                    double *sums =
                        curves_at(curves, (enum curve_source)source, length, layer, head);

                    for (int i = 0; i < curve_points((enum curve_source)source); i++)
                        sums[i] =
                            samples * mass_of((enum curve_source)source, length, layer, head, i);
                }
        }
}

static int setup(void **state)
{
    static struct fixture fixture;

    fixture.profile = (struct profile){
        .layers = LAYERS, .kv_heads = KV_HEADS, .points = CURVE_SHARES, .lengths = LENGTHS};
    assert_int_equal(curves_init(&fixture.curves, LENGTHS, LAYERS, KV_HEADS), TCA_OK);
    assert_int_equal(profile_allocate(&fixture.profile, true), TCA_OK);
    fill(&fixture.curves);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    curves_deinit(&fixture->curves);
    profile_deinit(&fixture->profile);
    return 0;
}

static float at(const struct profile *profile, enum profile_table table, int length, int layer,
                int head, int point)
{
    return profile
        ->mass[table][((length * LAYERS + layer) * KV_HEADS + head) * CURVE_SHARES + point];
}

static void tables_hold_the_means(void **state)
{
    struct fixture *fixture = *state;

    curves_fill(&fixture->curves, 0.9, &fixture->profile);
    for (int length = 0; length < LENGTHS; length++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int head = 0; head < KV_HEADS; head++)
                for (int i = 0; i < CURVE_SHARES; i++) {
                    const double block = mass_of(CURVE_BLOCK_TEXT, length, layer, head, i);
                    const double text = mass_of(CURVE_POOLED_TEXT, length, layer, head, i);
                    const double question = mass_of(CURVE_POOLED_QUESTION, length, layer, head, i);
                    const double prefill =
                        (double)at(&fixture->profile, PROFILE_PREFILL, length, layer, head, i);
                    const double both =
                        (double)at(&fixture->profile, PROFILE_QUESTION, length, layer, head, i);

                    assert_true(fabs(prefill - fmin(block, 1.0)) < 1e-4);
                    assert_true(fabs(both - fmin((text + question) / 2, 1.0)) < 1e-4);
                }
    assert_true(fixture->profile.share[CURVE_SHARES - 1] == 1.0F);
}

static void without_questions_text_alone_makes_their_table(void **state)
{
    struct fixture *fixture = *state;

    fixture->curves.samples[CURVE_POOLED_QUESTION][0] = 0;
    fixture->curves.samples[CURVE_POOLED_QUESTION][1] = 0;
    curves_fill(&fixture->curves, 0.9, &fixture->profile);
    assert_true(fabs((double)at(&fixture->profile, PROFILE_QUESTION, 1, 2, 1, 3) -
                     mass_of(CURVE_POOLED_TEXT, 1, 2, 1, 3)) < 1e-4);
}

static void masses_have_four_digits(void **state)
{
    struct fixture *fixture = *state;

    curves_at(&fixture->curves, CURVE_BLOCK_TEXT, 0, 0, 0)[0] = 2 * 0.123456789;
    curves_at(&fixture->curves, CURVE_BLOCK_TEXT, 0, 0, 0)[1] = 2 * 1.0000001; /* of rounding */
    curves_fill(&fixture->curves, 0.9, &fixture->profile);
    assert_true(at(&fixture->profile, PROFILE_PREFILL, 0, 0, 0, 0) == 0.1235F);
    assert_true(at(&fixture->profile, PROFILE_PREFILL, 0, 0, 0, 1) == 1.0F);
}

/* The masses of all candidates of one head at one length. */
static void set_tca(struct curves *curves, int length, const double mass[CURVE_TCA_CANDIDATES])
{
    double *sums = curves_at(curves, CURVE_TCA_TEXT, length, 1, 1);

    for (int i = 0; i < CURVE_TCA_CANDIDATES; i++)
        sums[i] = curves->samples[CURVE_TCA_TEXT][length] * mass[i];
}

static void the_sparsest_candidate_that_keeps_enough_everywhere(void **state)
{
    struct fixture *fixture = *state;
    double mass[CURVE_TCA_CANDIDATES];
    struct profile_tca *chosen = &fixture->profile.tca[1 * KV_HEADS + 1];
    struct profile_tca wanted = curve_tca_candidate(10, NULL);

    for (int i = 0; i < CURVE_TCA_CANDIDATES; i++)
        mass[i] = i < 9 ? 0.5 : 0.95;
    mass[10] = 0.97; /* of the same size as 9 and 11 */
    set_tca(&fixture->curves, 0, mass);
    mass[4] = 0.99; /* at one length only */
    set_tca(&fixture->curves, 1, mass);
    curves_fill(&fixture->curves, 0.9, &fixture->profile);
    assert_true(chosen->mu == wanted.mu && chosen->sigma == wanted.sigma);

    for (int i = 0; i < CURVE_TCA_CANDIDATES; i++)
        mass[i] = 0.8;
    set_tca(&fixture->curves, 1, mass);
    curves_fill(&fixture->curves, 0.9, &fixture->profile);
    float shares[SELECT_TCA_SIZES];
    select_tca_shares((double)chosen->mu, (double)chosen->sigma, shares);
    assert_true(shares[SELECT_TCA_SIZES - 1] == 1.0F); /* nothing reaches it: whole blocks */
}

static void candidates_go_from_sparse_to_dense(void **state)
{
    double before = 0.0;

    (void)state;
    for (int i = 0; i < CURVE_TCA_CANDIDATES; i++) {
        double keep, kept = 0.0;
        const struct profile_tca candidate = curve_tca_candidate(i, &keep);
        float shares[SELECT_TCA_SIZES];

        select_tca_shares((double)candidate.mu, (double)candidate.sigma, shares);
        for (int k = 0; k < SELECT_TCA_SIZES; k++)
            kept += (double)shares[k] * (double)(1 << k) / SELECT_BLOCK_TOKENS;
        assert_true(fabs(kept - keep) < 1e-4);
        assert_true(keep >= before && keep < 1.0);
        before = keep;
    }
}

static void budgets_are_shares_above_what_is_always_kept(void **state)
{
    (void)state;
    assert_int_equal(curve_budget(0, 1000000, 1024), 2500);
    assert_int_equal(curve_budget(0, 100000, 1024), 64 + 1024);
    assert_int_equal(curve_budget(8, 8192, 0), 820); /* 10 %, rounded up */
    assert_int_equal(curve_budget(CURVE_SHARES - 1, 8191, 1024), 8191);
    assert_int_equal(curve_budget(0, 500, 1024), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tables_hold_the_means, setup, teardown),
        cmocka_unit_test_setup_teardown(without_questions_text_alone_makes_their_table, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(masses_have_four_digits, setup, teardown),
        cmocka_unit_test_setup_teardown(the_sparsest_candidate_that_keeps_enough_everywhere, setup,
                                        teardown),
        cmocka_unit_test(candidates_go_from_sparse_to_dense),
        cmocka_unit_test(budgets_are_shares_above_what_is_always_kept),
    };
    return cmocka_run_group_tests_name("curves", tests, NULL, NULL);
}
