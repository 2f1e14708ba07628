#include "tests/support/numbers.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
enum { ISAS = 3 };

static void angles_are_right_at_any_position(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    enum { HALF = 32, ROWS = 6 };
    static const int32_t positions[ROWS] = {0, 1, 4097, 131071, 999999, 16777215};
    float inv_freq[HALF];
    float table[ROWS * HALF * 2];
    for (int i = 0; i < HALF; i++)
        inv_freq[i] = powf(500000.0f, -(float)i / HALF);
    struct kernel_queue *queue;
    assert_int_equal(cpu_queue_create(2, CPU_ISA_AVX512_BF16, &queue), TCA_OK);
    assert_int_equal(cpu->rope_table(queue, table, positions, ROWS, inv_freq, HALF, 1.25f), TCA_OK);
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < HALF; i++) {
            float angle = (float)positions[row] * inv_freq[i]; /* rounded to f32, as it should */
            double want[2] = {1.25 * cos((double)angle), 1.25 * sin((double)angle)};
            assert_close(table + (row * HALF + i) * 2, want, 2, 2e-7, 2e-7, "angle");
        }
    cpu_queue_destroy(queue);
}

struct append_case {
    int q_heads, kv_heads, head_dim;
    bool has_norm;
    int appends;
    int tokens[3];
};

/* One head: normalised, then its pairs (i, i + half) turned. */
static void reference_head(const float *head, const float *weight, const float *table, int dim,
                           double *out)
{
    double squares = 0;
    int half = dim / 2;
    for (int i = 0; i < dim; i++)
        squares += (double)head[i] * (double)head[i];
    double scale = 1 / sqrt(squares / dim + 1e-6);
    for (int i = 0; i < half; i++) {
        double a = (double)head[i] * (weight ? scale * (double)weight[i] : 1);
        double b = (double)head[half + i] * (weight ? scale * (double)weight[half + i] : 1);
        double cosine = (double)table[2 * i];
        double sine = (double)table[2 * i + 1];
        out[i] = a * cosine - b * sine;
        out[half + i] = b * cosine + a * sine;
    }
}

static void check_append(enum cpu_isa isa, const struct append_case *c)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue;
    assert_int_equal(cpu_queue_create(3, isa, &queue), TCA_OK);
    enum { FIRST_ROW = 5 };
    uint64_t random = 17;
    int dim = c->head_dim;
    int tokens = c->tokens[0] + c->tokens[1] + c->tokens[2];
    int row_heads = c->q_heads + 2 * c->kv_heads;
    float *qkv = new_floats((size_t)(tokens * row_heads * dim), &random);
    float *rope = new_floats((size_t)(tokens * dim), &random);
    float *q_weight = new_floats((size_t)dim, &random);
    float *k_weight = new_floats((size_t)dim, &random);
    uint16_t *q = new_array((size_t)(tokens * c->q_heads * dim), sizeof(*q));
    struct qk_norm norm = {.eps = 1e-6f};
    if (c->has_norm) {
        norm.q = q_weight;
        norm.k = k_weight;
    }
    struct attention_shape shape = {c->q_heads, c->kv_heads, dim, 1};
    struct kv_append appends[3];
    int first_token = 0;
    for (int i = 0; i < c->appends; i++) {
        size_t stride = (size_t)((FIRST_ROW + c->tokens[i] + 1) * dim);
        appends[i] = (struct kv_append){
            .first_token = first_token,
            .tokens = c->tokens[i],
            .k = new_bf16s(stride * (size_t)c->kv_heads, 0, NULL),
            .v = new_bf16s(stride * (size_t)c->kv_heads, 0, NULL),
            .head_stride = (int64_t)stride,
            .first_row = FIRST_ROW,
        };
        first_token += c->tokens[i];
    }
    assert_int_equal(cpu->rope_append(queue, q, appends, c->appends, qkv, &shape, rope, &norm),
                     TCA_OK);

    double *want = new_array((size_t)dim, sizeof(*want));
    for (int i = 0; i < c->appends; i++) {
        for (int t = 0; t < appends[i].tokens; t++) {
            int token = appends[i].first_token + t;
            const float *row = qkv + token * row_heads * dim;
            const float *table = rope + token * dim;
            for (int head = 0; head < c->q_heads; head++) {
                reference_head(row + head * dim, norm.q, table, dim, want);
                assert_close_bf16(q + (token * c->q_heads + head) * dim, want, (size_t)dim, 1e-5,
                                  1.0 / 256, "q");
            }
            for (int head = 0; head < c->kv_heads; head++) {
                int64_t at = head * appends[i].head_stride + (FIRST_ROW + t) * dim;
                reference_head(row + (c->q_heads + head) * dim, norm.k, table, dim, want);
                assert_close_bf16(appends[i].k + at, want, (size_t)dim, 1e-5, 1.0 / 256, "k");
                const float *v = row + (c->q_heads + c->kv_heads + head) * dim;
                for (int d = 0; d < dim; d++)
                    want[d] = (double)v[d];
                assert_close_bf16(appends[i].v + at, want, (size_t)dim, 0, 1.0 / 256, "v");
            }
        }
        for (int d = 0; d < FIRST_ROW * dim; d++) /* rows before are left alone */
            assert_int_equal(appends[i].k[d] | appends[i].v[d], 0);
        free(appends[i].k);
        free(appends[i].v);
    }
    free(want);
    free(q);
    free(k_weight);
    free(q_weight);
    free(rope);
    free(qkv);
    cpu_queue_destroy(queue);
}

static void heads_are_turned_and_put_in_their_places(void **state)
{
    (void)state;
    static const struct append_case cases[] = {
        {1, 1, 8, false, 1, {1, 0, 0}},    {9, 3, 64, false, 1, {33, 0, 0}},
        {8, 4, 64, true, 2, {20, 1, 0}},   {4, 2, 128, true, 3, {1, 1, 7}},
        {3, 1, 24, false, 3, {2, 0, 100}}, {2, 2, 256, true, 1, {9, 0, 0}},
    };
    for (size_t isa = 0; isa < ISAS; isa++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
            check_append(isas[isa], &cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(angles_are_right_at_any_position),
        cmocka_unit_test(heads_are_turned_and_put_in_their_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
