/* Block scores, their log-sum-exps and masses, and token scores against double precision, on
 * every instruction set. */
#include "tests/support/tca_case.h"

#include "base/min.h"

static const struct tca_case cases[] = {
    {"one token", 1, 1, 64, 1, 1, 1},
    {"one block", 2, 1, 64, 5, 2, 64},
    {"one block and a token", 1, 2, 64, 9, 3, 65},
    {"short of a block", 1, 3, 64, 17, 16, 63},
    {"grouped by 1", 3, 1, 64, 64, 16, 1000},
    {"grouped by 2", 4, 2, 64, 64, 16, 1025},
    {"grouped by 3", 3, 3, 64, 40, 16, 511},
    {"grouped by 4", 2, 4, 128, 64, 16, 130},
    {"few columns", 2, 4, 64, 16, 2, 2100},
    {"an odd head size", 2, 2, 40, 33, 5, 333},
    {"the largest head", 1, 2, 256, 20, 20, 200},
    {"the smallest head", 2, 1, 8, 20, 9, 200},
    {"several blocks of columns", 1, 4, 32, 90, 80, 1100},
    {"nothing earlier", 2, 2, 64, 16, 4, 0},
};

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

typedef void (*check_fn)(struct kernel_queue *queue, const struct tca_tensors *t, const char *what);

static void check_all(check_fn check)
{
    static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
    for (int i = 0; i < CASES; i++) {
        struct tca_tensors t;
        tca_tensors_init(&t, &cases[i]);
        for (int isa = 0; isa < 3; isa++) {
            struct kernel_queue *queue = tca_queue(isas[isa], (i + isa) % 3 + 1);
            check(queue, &t, cases[i].what);
            cpu_queue_destroy(queue);
        }
        tca_tensors_deinit(&t);
    }
}

static int64_t block_end(int64_t block, int64_t rows)
{
    return min_i64((block + 1) * SELECT_BLOCK_TOKENS, rows);
}

/* One value too many is made, to see that it stays untouched. */
static float *new_marked(size_t count)
{
    float *array = new_floats(count + 1, NULL);
    for (size_t i = 0; i <= count; i++)
        array[i] = 12345.0f;
    return array;
}

static void check_block_scores(struct kernel_queue *queue, const struct tca_tensors *t,
                               const char *what)
{
    int64_t rows = t->earlier.rows;
    int64_t blocks = select_blocks(rows);
    size_t count = (size_t)(t->count * t->shape.q_heads * blocks);
    float *scores = new_marked(count);
    assert_int_equal(kernel_backend_cpu()->block_scores(queue, scores, t->q, &t->shape,
                                                        t->observers, t->count, &t->earlier),
                     TCA_OK);
    const float *got = scores;
    for (int o = 0; o < t->count; o++)
        for (int head = 0; head < t->shape.q_heads; head++)
            for (int64_t j = 0; j < blocks; j++) {
                double want =
                    tca_lse(t, t->observers[o], head, j * SELECT_BLOCK_TOKENS, block_end(j, rows));
                assert_close(got++, &want, 1, 2e-5, 2e-6, what);
            }
    assert_true(*got == 12345.0f);
    free(scores);
}

static void block_scores_are_log_sums_of_blocks(void **state)
{
    (void)state;
    check_all(check_block_scores);
}

/* Without the rounding of q . k: all scores are 0, so a block of n rows has log(n). */
static void logarithms_of_counts_are_exact_to_the_last_bits(void **state)
{
    (void)state;
    static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
    for (int isa = 0; isa < 3; isa++)
        for (int observers = 2; observers <= 20; observers += 18) /* few columns, and many */
            for (int rows = 1; rows <= SELECT_BLOCK_TOKENS; rows++) {
                struct tca_case c = {"equal", 1, 1, 64, observers, observers, rows};
                struct kernel_queue *queue = tca_queue(isas[isa], 1);
                float scores[20];
                double want = log(rows);
                struct tca_tensors t;
                tca_tensors_init(&t, &c);
                memset(t.q, 0, (size_t)(c.queries * c.head_dim) * sizeof(*t.q));
                assert_int_equal(kernel_backend_cpu()->block_scores(queue, scores, t.q, &t.shape,
                                                                    t.observers, t.count,
                                                                    &t.earlier),
                                 TCA_OK);
                for (int i = 0; i < observers; i++)
                    assert_close(scores + i, &want, 1, 1e-7, 1.5e-7, "log");
                tca_tensors_deinit(&t);
                cpu_queue_destroy(queue);
            }
}

static void check_lse_and_masses(struct kernel_queue *queue, const struct tca_tensors *t,
                                 const char *what)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    int q_heads = t->shape.q_heads;
    int group = q_heads / t->shape.kv_heads;
    int64_t rows = t->earlier.rows;
    int64_t blocks = select_blocks(rows);
    float *scores = new_floats((size_t)(t->count * q_heads * blocks), NULL);
    float *own = new_floats((size_t)(t->queries * q_heads), NULL);
    float *lse = new_marked((size_t)(t->count * q_heads));
    float *masses = new_marked((size_t)(t->shape.kv_heads * blocks));
    for (int i = 0; i < t->queries * q_heads; i++)
        own[i] = (float)tca_lse(t, i / q_heads, i % q_heads, rows, rows + i / q_heads + 1);
    assert_int_equal(
        cpu->block_scores(queue, scores, t->q, &t->shape, t->observers, t->count, &t->earlier),
        TCA_OK);
    assert_int_equal(
        cpu->observer_lse(queue, lse, scores, own, t->observers, t->count, q_heads, blocks),
        TCA_OK);
    assert_int_equal(cpu->block_masses(queue, masses, scores, lse, t->count, &t->shape, blocks),
                     TCA_OK);
    double *want_lse = new_array((size_t)(t->count * q_heads), sizeof(*want_lse));
    for (int i = 0; i < t->count * q_heads; i++) {
        int query = t->observers[i / q_heads];
        want_lse[i] = tca_lse(t, query, i % q_heads, 0, rows + query + 1);
    }
    assert_close(lse, want_lse, (size_t)(t->count * q_heads), 2e-5, 2e-6, what);
    for (int g = 0; g < t->shape.kv_heads; g++)
        for (int64_t j = 0; j < blocks; j++) {
            double want = 0;
            for (int i = 0; i < t->count * group; i++) {
                int head = g * group + i % group;
                double block = tca_lse(t, t->observers[i / group], head, j * SELECT_BLOCK_TOKENS,
                                       block_end(j, rows));
                want = fmax(want, exp(block - want_lse[i / group * q_heads + head]));
            }
            assert_close(masses + g * blocks + j, &want, 1, 1e-12, 5e-5, what);
        }
    assert_true(lse[t->count * q_heads] == 12345.0f);
    assert_true(masses[t->shape.kv_heads * blocks] == 12345.0f);
    free(want_lse);
    free(masses);
    free(lse);
    free(own);
    free(scores);
}

static void masses_are_shares_of_all_causal_keys(void **state)
{
    (void)state;
    check_all(check_lse_and_masses);
}

static void check_token_scores(struct kernel_queue *queue, const struct tca_tensors *t,
                               const char *what)
{
    int q_heads = t->shape.q_heads;
    int group = q_heads / t->shape.kv_heads;
    int64_t rows = t->earlier.rows;
    float *lse = new_floats((size_t)(t->count * q_heads), NULL);
    float *scores = new_marked((size_t)(t->shape.kv_heads * rows));
    for (int i = 0; i < t->count * q_heads; i++) {
        int query = t->observers[i / q_heads];
        lse[i] = (float)tca_lse(t, query, i % q_heads, 0, rows + query + 1);
    }
    assert_int_equal(kernel_backend_cpu()->token_scores(queue, scores, t->q, lse, &t->shape,
                                                        t->observers, t->count, &t->earlier),
                     TCA_OK);
    const float *got = scores;
    for (int g = 0; g < t->shape.kv_heads; g++)
        for (int64_t token = 0; token < rows; token++) {
            double most = -INFINITY;
            for (int i = 0; i < t->count * group; i++) {
                int head = g * group + i % group;
                double score = tca_score(t, t->observers[i / group], head, token);
                most = fmax(most, score - (double)lse[i / group * q_heads + head]);
            }
            double want = exp(most);
            assert_close(got++, &want, 1, 1e-12, 5e-5, what);
        }
    assert_true(*got == 12345.0f);
    free(scores);
    free(lse);
}

static void token_scores_are_the_largest_weights(void **state)
{
    (void)state;
    check_all(check_token_scores);
}

static void rows_past_a_heads_count_weigh_nothing(void **state)
{
    (void)state;
    static const struct tca_case c = {"ragged", 4, 2, 64, 8, 8, 1300};
    static const int32_t rows_of[] = {0, 65, 1024, 1300};
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct tca_tensors t;
    tca_tensors_init(&t, &c);
    struct attention_segment keys = t.earlier;
    keys.rows_per_head = rows_of;
    int64_t blocks = select_blocks(c.earlier);
    float *scores = new_floats((size_t)(8 * 8 * blocks), NULL);
    float *tokens = new_floats((size_t)(4 * c.earlier), NULL);
    float lse[8 * 8] = {0};
    struct kernel_queue *queue = tca_queue(cpu_isa_detect(), 2);
    assert_int_equal(cpu->block_scores(queue, scores, t.q, &t.shape, t.observers, t.count, &keys),
                     TCA_OK);
    assert_int_equal(
        cpu->token_scores(queue, tokens, t.q, lse, &t.shape, t.observers, t.count, &keys), TCA_OK);
    for (int i = 0; i < 8 * 8; i++)
        for (int64_t j = 0; j < blocks; j++) {
            int head = i % 8;
            int64_t rows = rows_of[head / 2];
            float got = scores[i * blocks + j];
            if (j * SELECT_BLOCK_TOKENS >= rows) {
                assert_true(got == -INFINITY);
                continue;
            }
            double want =
                tca_lse(&t, t.observers[i / 8], head, j * SELECT_BLOCK_TOKENS, block_end(j, rows));
            assert_close(&got, &want, 1, 2e-5, 2e-6, "ragged");
        }
    for (int head = 0; head < 4; head++)
        for (int i = 0; i < c.earlier; i++)
            assert_true((tokens[head * c.earlier + i] > 0) == (i < rows_of[head]));
    cpu_queue_destroy(queue);
    free(tokens);
    free(scores);
    tca_tensors_deinit(&t);
}

static void observers_that_see_nothing_do_not_count(void **state)
{
    (void)state;
    static const struct tca_case c = {"blind", 1, 1, 64, 2, 2, 200};
    const struct kernel_backend *cpu = kernel_backend_cpu();
    static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
    struct tca_tensors t;
    tca_tensors_init(&t, &c);
    for (int i = 0; i < 3; i++) {
        struct kernel_queue *queue = tca_queue(isas[i], 1);
        float scores[2][4] = {{-INFINITY, -INFINITY, -INFINITY, -INFINITY}, {1, -INFINITY, 0, 1}};
        const float own[] = {-INFINITY, -INFINITY};
        float lse[2], masses[4], tokens[200];
        assert_int_equal(cpu->observer_lse(queue, lse, scores[0], own, t.observers, 2, 1, 4),
                         TCA_OK);
        assert_true(lse[0] == -INFINITY);
        assert_true(fabs((double)lse[1] - log(1 + 2 * exp(1))) < 1e-5);
        assert_int_equal(cpu->block_masses(queue, masses, scores[0], lse, 2, &t.shape, 4), TCA_OK);
        assert_true(masses[0] > 0.4f && masses[0] < 0.43f && masses[1] == 0 && masses[2] > 0.1f);
        lse[1] = -INFINITY;
        assert_int_equal(cpu->block_masses(queue, masses, scores[0], lse, 2, &t.shape, 4), TCA_OK);
        assert_int_equal(
            cpu->token_scores(queue, tokens, t.q, lse, &t.shape, t.observers, 2, &t.earlier),
            TCA_OK);
        for (int j = 0; j < 4; j++)
            assert_true(masses[j] == 0);
        for (int j = 0; j < 200; j++)
            assert_true(tokens[j] == 0);
        cpu_queue_destroy(queue);
    }
    tca_tensors_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_scores_are_log_sums_of_blocks),
        cmocka_unit_test(logarithms_of_counts_are_exact_to_the_last_bits),
        cmocka_unit_test(masses_are_shares_of_all_causal_keys),
        cmocka_unit_test(token_scores_are_the_largest_weights),
        cmocka_unit_test(rows_past_a_heads_count_weigh_nothing),
        cmocka_unit_test(observers_that_see_nothing_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
