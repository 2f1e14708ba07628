/* The measured curves against a dense attention in double whose dropped tokens are masked. */
#include "tests/support/tca_case.h"

#include "calibrate/measure.h"

enum { KV_HEADS = 2, GROUP = 2, HEADS = KV_HEADS * GROUP, DIM = 16, WINDOW = 100 };

/* A sample's tensors and plain numbers. Token i of the keys is earlier,
 * or own from `earlier` on. */
struct fixture {
    struct tca_tensors tensors; /* the step's rows are its queries */
    struct sample sample;
    struct measure *measure;
    struct device device;
    double *sums[CURVE_SOURCES];
    double *weights; /* [judged, HEADS, earlier]: shares of a judged query's mass */
    float *scores;   /* [KV_HEADS, earlier] of all observers */
    float *last;     /* the same of the last one */
    float *masses;   /* [KV_HEADS, blocks] */
};

/* exp(score - LSE over all causal keys) of the earlier tokens; out: [earlier]. */
static void weigh(const struct fixture *f, int row, int head, double *out)
{
    const int64_t earlier = f->sample.earlier;
    const double lse = tca_lse(&f->tensors, row, head, 0, earlier + row + 1);

    for (int64_t i = 0; i < earlier; i++)
        out[i] = exp(tca_score(&f->tensors, row, head, i) - lse);
}

static float larger(float a, double b)
{
    return b > (double)a ? (float)b : a;
}

static void observe(struct fixture *f)
{
    const int64_t earlier = f->sample.earlier, blocks = select_blocks(earlier);
    double *weights = new_array((size_t)earlier, sizeof(*weights));

    for (int row = 0; row < f->sample.observers; row++)
        for (int head = 0; head < HEADS; head++) {
            const int64_t first = head / GROUP * earlier;
            float *masses = f->masses + head / GROUP * blocks;

            weigh(f, row, head, weights);
            for (int64_t i = 0; i < earlier; i++) {
                f->scores[first + i] = larger(f->scores[first + i], weights[i]);
                if (row == f->sample.observers - 1)
                    f->last[first + i] = larger(f->last[first + i], weights[i]);
            }
            for (int64_t j = 0; j < blocks; j++) {
                double mass = 0.0;

                for (int64_t i = j * 64; i < earlier && i < (j + 1) * 64; i++)
                    mass += weights[i];
                masses[j] = larger(masses[j], mass);
            }
        }
    free(weights);
}

static void fixture_init(struct fixture *f, const struct sample *sample)
{
    const struct tca_case c = {.kv_heads = KV_HEADS,
                               .group = GROUP,
                               .head_dim = DIM,
                               .queries = sample->rows,
                               .observers = 1,
                               .earlier = (int)sample->earlier};
    const struct measure_limits limits = {.earlier = sample->earlier + 70, .window = WINDOW};
    const size_t earlier = (size_t)sample->earlier;
    struct tca_error error;

    *f = (struct fixture){
        .sample = *sample,
        .device = {.backend = kernel_backend_cpu(), .queue = tca_queue(cpu_isa_detect(), 2)}};
    tca_tensors_init(&f->tensors, &c);
    assert_int_equal(measure_create(&f->device, &f->tensors.shape, &limits, &f->measure, &error),
                     TCA_OK);
    for (int source = 0; source < CURVE_SOURCES; source++)
        f->sums[source] =
            new_array((size_t)(KV_HEADS * curve_points((enum curve_source)source)), sizeof(double));
    f->weights = new_array((size_t)sample->judged * HEADS * earlier, sizeof(double));
    f->scores = new_floats(KV_HEADS * earlier, NULL);
    f->last = new_floats(KV_HEADS * earlier, NULL);
    f->masses = new_floats((size_t)(KV_HEADS * select_blocks(sample->earlier)), NULL);
    for (int i = 0; i < sample->judged; i++)
        for (int head = 0; head < HEADS; head++)
            weigh(f, sample->judged_row[i], head,
                  f->weights + (size_t)(i * HEADS + head) * earlier);
    observe(f);
}

static void fixture_deinit(struct fixture *f)
{
    for (int source = 0; source < CURVE_SOURCES; source++)
        free(f->sums[source]);
    free(f->weights);
    free(f->scores);
    free(f->last);
    free(f->masses);
    measure_destroy(f->measure);
    kernel_backend_cpu()->queue_destroy(f->device.queue);
    tca_tensors_deinit(&f->tensors);
}

static enum tca_status run(const struct fixture *f)
{
    const struct measure_keys keys = {
        .q = f->tensors.q, .earlier = f->tensors.earlier, .own = f->tensors.own};

    return measure_sample(f->measure, &f->sample, &keys, f->sums);
}

/* Mean mass that the judged queries keep when one head selects so. */
static double masked_mass(const struct fixture *f, enum select_rule rule,
                          const struct select_input *input, int64_t budget, int kv_head)
{
    const size_t earlier = (size_t)f->sample.earlier;
    void *scratch = new_array(select_scratch_bytes(input->tokens), 1);
    int32_t *kept = new_array(earlier, sizeof(*kept));
    uint8_t *is_kept = new_array(earlier, 1);
    double mass = 0.0;
    int64_t count;

    assert_int_equal(select_run(rule, input, budget, scratch, kept, &count), TCA_OK);
    for (int64_t i = 0; i < count; i++)
        is_kept[kept[i]] = 1;
    for (int judged = 0; judged < f->sample.judged; judged++)
        for (int head = kv_head * GROUP; head < (kv_head + 1) * GROUP; head++) {
            const double *weights = f->weights + (size_t)(judged * HEADS + head) * earlier;

            mass += 1.0;
            for (size_t i = 0; i < earlier; i++)
                mass -= is_kept[i] ? 0.0 : weights[i];
        }
    free(is_kept);
    free(kept);
    free(scratch);
    return mass / (f->sample.judged * GROUP);
}

static struct select_input input_of(const struct fixture *f, const float *scores, int head)
{
    return (struct select_input){.tokens = f->sample.earlier,
                                 .window = WINDOW,
                                 .token_scores = scores + head * f->sample.earlier,
                                 .block_masses =
                                     f->masses + head * select_blocks(f->sample.earlier)};
}

/* Scores in float may order near ties otherwise: a few tokens, of next to no mass. */
static void assert_mass(double got, double want, enum select_rule rule, int head, int point)
{
    if (!(fabs(got - want) < 2e-3))
        fail_msg("rule %d, KV head %d, point %d: %.6f, not %.6f", (int)rule, head, point, got,
                 want);
}

static void check_budgets(const struct fixture *f, enum curve_source source, enum select_rule rule)
{
    double before = 0.0;

    for (int head = 0; head < KV_HEADS; head++) {
        const struct select_input input = input_of(f, f->scores, head);

        for (int i = 0; i < CURVE_SHARES; i++) {
            const int64_t budget = curve_budget(i, f->sample.earlier, WINDOW);
            const double got = f->sums[source][head * CURVE_SHARES + i];

            assert_mass(got, masked_mass(f, rule, &input, budget, head), rule, head, i);
            assert_true(i == 0 || got >= before); /* supersets */
            before = got;
        }
        assert_true(before == 1.0);
    }
}

static void check_candidates(const struct fixture *f)
{
    for (int head = 0; head < KV_HEADS; head++)
        for (int i = 0; i < CURVE_TCA_CANDIDATES; i++) {
            const struct profile_tca candidate = curve_tca_candidate(i, NULL);
            struct select_input input = input_of(f, f->last, head);
            float shares[SELECT_TCA_SIZES];

            select_tca_shares((double)candidate.mu, (double)candidate.sigma, shares);
            input.tca_shares = shares;
            assert_mass(f->sums[CURVE_TCA_TEXT][head * CURVE_TCA_CANDIDATES + i],
                        masked_mass(f, SELECT_TCA, &input, f->sample.earlier - 1, head), SELECT_TCA,
                        head, i);
        }
}

static void text_samples_are_a_masked_dense_attention(void **state)
{
    static const int64_t earlier[] = {1000, 1024};

    (void)state;
    for (size_t i = 0; i < sizeof(earlier) / sizeof(*earlier); i++) {
        struct sampler_random random;
        struct sample sample;
        struct fixture f;

        sampler_random_seed(&random, 5);
        sample = sample_of_text(0, earlier[i], &random);
        fixture_init(&f, &sample);
        assert_int_equal(run(&f), TCA_OK);
        check_budgets(&f, CURVE_BLOCK_TEXT, SELECT_BLOCK);
        check_budgets(&f, CURVE_POOLED_TEXT, SELECT_POOLED);
        check_candidates(&f);
        assert_true(f.sums[CURVE_POOLED_QUESTION][0] == 0.0);
        fixture_deinit(&f);
    }
}

static void questions_are_a_masked_dense_attention(void **state)
{
    const struct sample sample = sample_of_question(0, 900, 23, 5);
    struct fixture f;

    (void)state;
    fixture_init(&f, &sample);
    assert_int_equal(run(&f), TCA_OK);
    check_budgets(&f, CURVE_POOLED_QUESTION, SELECT_POOLED);
    for (int source = 0; source < CURVE_SOURCES; source++)
        assert_true(source == CURVE_POOLED_QUESTION || f.sums[source][0] == 0.0);
    fixture_deinit(&f);
}

static void samples_add_up(void **state)
{
    const struct sample sample = sample_of_question(0, 900, 23, 5);
    struct fixture f;
    double once;

    (void)state;
    fixture_init(&f, &sample);
    assert_int_equal(run(&f), TCA_OK);
    once = f.sums[CURVE_POOLED_QUESTION][CURVE_SHARES + 9];
    assert_int_equal(run(&f), TCA_OK);
    assert_true(f.sums[CURVE_POOLED_QUESTION][CURVE_SHARES + 9] == 2.0 * once);
    fixture_deinit(&f);
}

static void a_window_of_everything_keeps_everything(void **state)
{
    const struct sample sample = sample_of_question(0, 150, 3, 2); /* 64 + 100 are more */
    struct fixture f;

    (void)state;
    fixture_init(&f, &sample);
    assert_int_equal(run(&f), TCA_OK);
    for (int i = 0; i < KV_HEADS * CURVE_SHARES; i++)
        assert_true(f.sums[CURVE_POOLED_QUESTION][i] == 1.0);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_samples_are_a_masked_dense_attention),
        cmocka_unit_test(questions_are_a_masked_dense_attention),
        cmocka_unit_test(samples_add_up),
        cmocka_unit_test(a_window_of_everything_keeps_everything),
    };
    return cmocka_run_group_tests_name("measure", tests, NULL, NULL);
}
