#include "tests/support/check.h"

#include "worker/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 40, DRAWS = 40000 };

static const struct sampler_params greedy = {.top_p = 1.0, .repetition_penalty = 1.0};

struct fixture {
    struct sampler *sampler;
    float logits[VOCAB];
    struct logits_row row;
};

/* Logits without ties, in no order. */
static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    if (fixture == NULL || sampler_create(VOCAB, &fixture->sampler) != TCA_OK)
        return -1;
    for (int id = 0; id < VOCAB; id++)
        fixture->logits[id] = 3.0F * sinf((float)(id * 7 + 1)) + 0.01F * (float)id;
    fixture->row = (struct logits_row){.full = fixture->logits, .vocab = VOCAB};
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    sampler_destroy(fixture->sampler);
    free(fixture);
    return 0;
}

/* The definition, step by step, in doubles and with no care for speed. */
static void expected_shares(const float *logits, const struct sampler_params *params,
                            const int32_t *seen, int seen_count, double *share)
{
    double score[VOCAB];
    bool is_kept[VOCAB];
    double total = 0.0;

    for (int id = 0; id < VOCAB; id++) {
        bool is_seen = false;

        for (int i = 0; i < seen_count; i++)
            is_seen = is_seen || seen[i] == id;
        score[id] = logits[id];
        if (is_seen)
            score[id] = score[id] < 0.0 ? score[id] * params->repetition_penalty
                                        : score[id] / params->repetition_penalty;
        score[id] /= params->temperature;
        is_kept[id] = true;
    }
    for (int id = 0; id < VOCAB && params->top_k > 0; id++) {
        int better = 0;

        for (int other = 0; other < VOCAB; other++)
            better += score[other] > score[id];
        is_kept[id] = better < params->top_k;
    }
    for (int id = 0; id < VOCAB; id++)
        total += is_kept[id] ? exp(score[id]) : 0.0;
    for (int id = 0; id < VOCAB; id++) {
        double above = 0.0; /* the share of all better tokens */
        double best = 0.0;

        for (int other = 0; other < VOCAB; other++) {
            double chance = score[other] > -1e30 ? exp(score[other]) / total : 0.0;

            if (chance > best)
                best = chance;
            if (score[other] > score[id])
                above += chance;
        }
        share[id] =
            is_kept[id] && above < params->top_p && exp(score[id]) / total >= params->min_p * best
                ? exp(score[id])
                : 0.0;
    }
    total = 0.0;
    for (int id = 0; id < VOCAB; id++)
        total += share[id];
    for (int id = 0; id < VOCAB; id++)
        share[id] /= total;
}

static void assert_draws_follow(struct fixture *fixture, const struct sampler_params *params,
                                const int32_t *seen, int seen_count)
{
    struct sampler_random random;
    double share[VOCAB];
    int drawn[VOCAB] = {0};

    expected_shares(fixture->logits, params, seen, seen_count, share);
    sampler_random_seed(&random, 12345);
    for (int i = 0; i < DRAWS; i++) {
        struct sampled_token token = sampler_choose(fixture->sampler, params, &fixture->row, seen,
                                                    (size_t)seen_count, &random);

        assert_in_range(token.chosen.id, 0, VOCAB - 1);
        drawn[token.chosen.id]++;
    }
    for (int id = 0; id < VOCAB; id++) {
        /* Six standard deviations of a binomial share. */
        double bound = 6.0 * sqrt(share[id] * (1.0 - share[id]) / DRAWS);

        if (share[id] == 0.0)
            assert_int_equal(drawn[id], 0);
        assert_true(fabs((double)drawn[id] / DRAWS - share[id]) <= bound + 1e-9);
    }
}

static void draws_follow_the_definition(void **state)
{
    const int32_t seen[] = {3, 17, 3, 5};
    const struct sampler_params all[] = {
        {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 0.6, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 1.5, .top_k = 5, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_k = 1, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_k = 1000, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_p = 0.7, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_p = 0.05, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_p = 0.999, .repetition_penalty = 1.0},
        {.temperature = 1.2, .top_p = 1.0, .min_p = 0.3, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_p = 1.0, .min_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 0.9, .top_k = 12, .top_p = 0.8, .min_p = 0.05, .repetition_penalty = 1.3},
        {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 5.0},
        {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 0.5},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        assert_draws_follow(*state, &all[i], seen, 4);
}

static void greedy_takes_the_best_and_uses_no_randomness(void **state)
{
    struct fixture *fixture = *state;
    struct sampler_random random, before;
    struct sampler_params params = greedy;
    struct sampled_token token;
    int best = 0;

    for (int id = 1; id < VOCAB; id++)
        best = fixture->logits[id] > fixture->logits[best] ? id : best;
    sampler_random_seed(&random, 1);
    before = random;
    token = sampler_choose(fixture->sampler, &params, &fixture->row, NULL, 0, &random);
    assert_int_equal(token.chosen.id, best);
    assert_memory_equal(&random, &before, sizeof(random));

    /* A penalty can dethrone it. */
    params.repetition_penalty = 10.0;
    token = sampler_choose(fixture->sampler, &params, &fixture->row, &(int32_t){best}, 1, &random);
    assert_int_not_equal(token.chosen.id, best);
}

static void ties_go_to_the_lowest_id(void **state)
{
    struct fixture *fixture = *state;
    struct sampled_token token;
    struct sampler_params params = greedy;
    struct sampler_random random = {0};

    fixture->logits[30] = fixture->logits[20] = fixture->logits[35] = 9.0F;
    params.logprobs = 3;
    token = sampler_choose(fixture->sampler, &params, &fixture->row, NULL, 0, &random);
    assert_int_equal(token.chosen.id, 20);
    assert_int_equal(token.best[0].id, 20);
    assert_int_equal(token.best[1].id, 30);
    assert_int_equal(token.best[2].id, 35);
}

/* Whatever was done to the distribution, log-probabilities are the model's. */
static void logprobs_are_of_the_raw_logits(void **state)
{
    struct fixture *fixture = *state;
    const struct sampler_params params = {.temperature = 0.5,
                                          .top_k = 3,
                                          .top_p = 0.9,
                                          .repetition_penalty = 2.0,
                                          .logprobs = SAMPLER_TOP_MAX};
    struct sampler_random random;
    struct sampled_token token;
    double sum = 0.0;

    for (int id = 0; id < VOCAB; id++)
        sum += exp((double)fixture->logits[id]);
    sampler_random_seed(&random, 9);
    token = sampler_choose(fixture->sampler, &params, &fixture->row, &(int32_t){3}, 1, &random);
    assert_true(fabs((double)fixture->logits[token.chosen.id] - log(sum) -
                     (double)token.chosen.logprob) < 1e-5);
    assert_int_equal(token.top, SAMPLER_TOP_MAX);
    for (int i = 0; i < token.top; i++) {
        int better = 0;

        for (int id = 0; id < VOCAB; id++)
            better += fixture->logits[id] > fixture->logits[token.best[i].id];
        assert_int_equal(better, i);
        assert_true(fabs((double)fixture->logits[token.best[i].id] - log(sum) -
                         (double)token.best[i].logprob) < 1e-5);
    }
}

/* The row's `count` best, as the ranks tell them. */
static struct logits_row top_row(const struct fixture *fixture, int count, float *value,
                                 int32_t *id)
{
    double sum = 0.0;

    for (int i = 0; i < VOCAB; i++) {
        int place = 0;

        sum += exp((double)fixture->logits[i]);
        for (int other = 0; other < VOCAB; other++)
            place += fixture->logits[other] > fixture->logits[i];
        if (place < count) {
            value[place] = fixture->logits[i];
            id[place] = i;
        }
    }
    return (struct logits_row){
        .top = count, .top_value = value, .top_id = id, .lse = (float)log(sum), .vocab = VOCAB};
}

static void candidates_give_what_the_whole_row_gives(void **state)
{
    struct fixture *fixture = *state;
    const struct sampler_params all[] = {
        {.top_p = 1.0, .repetition_penalty = 1.0, .logprobs = 4},
        {.temperature = 1.0, .top_k = 1, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 1.5, .top_k = 9, .top_p = 1.0, .repetition_penalty = 1.0, .logprobs = 4},
        {.temperature = 0.9, .top_k = 12, .top_p = 0.8, .min_p = 0.05, .repetition_penalty = 1.0},
        {.temperature = 1.0, .top_k = 1000, .top_p = 0.9, .repetition_penalty = 1.0},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        const int wanted = sampler_candidates(&all[i]);
        const int count = wanted == 0 || wanted > VOCAB ? VOCAB : wanted;
        struct sampler_random random, same;
        float value[VOCAB];
        int32_t id[VOCAB];
        struct logits_row row = top_row(fixture, count, value, id);

        sampler_random_seed(&random, i);
        same = random;
        for (int draw = 0; draw < 1000; draw++) {
            struct sampled_token whole =
                sampler_choose(fixture->sampler, &all[i], &fixture->row, NULL, 0, &random);
            struct sampled_token top =
                sampler_choose(fixture->sampler, &all[i], &row, NULL, 0, &same);

            assert_int_equal(top.chosen.id, whole.chosen.id);
            assert_true(fabsf(top.chosen.logprob - whole.chosen.logprob) < 1e-5F);
            assert_int_equal(top.top, whole.top);
            for (int best = 0; best < top.top; best++)
                assert_true(fabsf(top.best[best].logprob - whole.best[best].logprob) < 1e-5F);
        }
        assert_memory_equal(&random, &same, sizeof(random));
    }
}

static void candidates_suffice_for_a_top_k_alone(void **state)
{
    (void)state;
    assert_int_equal(sampler_candidates(&greedy), 1);
    assert_int_equal(sampler_candidates(&(struct sampler_params){
                         .top_p = 1.0, .repetition_penalty = 1.0, .top_k = 7, .logprobs = 5}),
                     5);
    assert_int_equal(sampler_candidates(&(struct sampler_params){
                         .temperature = 1.0, .top_p = 0.9, .repetition_penalty = 1.0, .top_k = 7}),
                     7);
    assert_int_equal(sampler_candidates(&(struct sampler_params){
                         .temperature = 1.0, .top_p = 0.9, .repetition_penalty = 1.0}),
                     0);
    assert_int_equal(
        sampler_candidates(&(struct sampler_params){
            .temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0, .top_k = 257}),
        0);
    assert_int_equal(
        sampler_candidates(&(struct sampler_params){.top_p = 1.0, .repetition_penalty = 1.1}), 0);
}

static void extreme_logits_do_no_harm(void **state)
{
    struct fixture *fixture = *state;
    const struct sampler_params all[] = {
        {.temperature = 1.0, .top_p = 0.9, .min_p = 0.1, .repetition_penalty = 1.5},
        {.temperature = 1e-40, .top_p = 1.0, .repetition_penalty = 1.0},
        {.temperature = 100.0, .top_p = 0.5, .top_k = 2, .repetition_penalty = 1.0},
        {.temperature = 0.0, .top_p = 1.0, .repetition_penalty = 1.5, .logprobs = 20},
    };
    const float values[] = {NAN, INFINITY, -INFINITY, 3e38F, -3e38F};
    struct sampler_random random;

    sampler_random_seed(&random, 1);
    for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++) {
        for (int filled = 1; filled <= VOCAB; filled += VOCAB - 1) {
            for (int id = 0; id < filled; id++)
                fixture->logits[id] = values[v];
            for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
                struct sampled_token token = sampler_choose(
                    fixture->sampler, &all[i], &fixture->row, &(int32_t){0}, 1, &random);

                assert_in_range(token.chosen.id, 0, VOCAB - 1);
            }
        }
    }
}

/* xoshiro256** seeded by splitmix64: its authors' reference implementation gives these. */
static void the_generator_is_the_published_one(void **state)
{
    const uint64_t expected[4] = {755370490430936, 3413550631330343, 6125286505004179,
                                  8328893607999084};
    struct sampler_random random;

    (void)state;
    sampler_random_seed(&random, 0);
    assert_true(random.state[0] == 0xe220a8397b1dcdafU);
    assert_true(random.state[3] == 0xf88bb8a8724c81ecU);
    sampler_random_seed(&random, 42);
    for (int i = 0; i < 4; i++)
        assert_true(sampler_random_next(&random) == (double)expected[i] * 0x1.0p-53);
}

static void bad_parameters_are_named(void **state)
{
    const struct {
        struct sampler_params params;
        const char *field;
    } all[] = {
        {{.temperature = -0.1, .top_p = 1.0, .repetition_penalty = 1.0}, "temperature"},
        {{.temperature = NAN, .top_p = 1.0, .repetition_penalty = 1.0}, "temperature"},
        {{.top_k = -1, .top_p = 1.0, .repetition_penalty = 1.0}, "top_k"},
        {{.top_p = 0.0, .repetition_penalty = 1.0}, "top_p"},
        {{.top_p = 1.1, .repetition_penalty = 1.0}, "top_p"},
        {{.top_p = 1.0, .min_p = 2.0, .repetition_penalty = 1.0}, "min_p"},
        {{.top_p = 1.0, .repetition_penalty = 0.0}, "repetition_penalty"},
        {{.top_p = 1.0, .repetition_penalty = INFINITY}, "repetition_penalty"},
        {{.top_p = 1.0, .repetition_penalty = 1.0, .logprobs = 21}, "logprobs"},
    };

    (void)state;
    assert_int_equal(sampler_params_check(&greedy, NULL), TCA_OK);
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        struct tca_error error;

        assert_int_equal(sampler_params_check(&all[i].params, &error), TCA_ERR_INVALID);
        assert_non_null(strstr(error.text, all[i].field));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(draws_follow_the_definition, setup, teardown),
        cmocka_unit_test_setup_teardown(greedy_takes_the_best_and_uses_no_randomness, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(ties_go_to_the_lowest_id, setup, teardown),
        cmocka_unit_test_setup_teardown(logprobs_are_of_the_raw_logits, setup, teardown),
        cmocka_unit_test_setup_teardown(candidates_give_what_the_whole_row_gives, setup, teardown),
        cmocka_unit_test(candidates_suffice_for_a_top_k_alone),
        cmocka_unit_test_setup_teardown(extreme_logits_do_no_harm, setup, teardown),
        cmocka_unit_test(the_generator_is_the_published_one),
        cmocka_unit_test(bad_parameters_are_named),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
