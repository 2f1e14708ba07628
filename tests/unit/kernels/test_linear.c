#include "tests/support/numbers.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

struct linear_case {
    int rows, in, out;
    bool bias;
    enum kernel_dtype dtype;
};

/* A sum of `in` products of bf16 numbers, and its rounding to the output's dtype. */
static void check_linear(enum cpu_isa isa, int threads, const struct linear_case *c)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue;
    assert_int_equal(cpu_queue_create(threads, isa, &queue), TCA_OK);
    uint64_t random = 42;
    size_t rows = (size_t)c->rows, in = (size_t)c->in, out = (size_t)c->out;
    uint16_t *x = new_bf16s(rows * in, 1, &random);
    uint16_t *w = new_bf16s(out * in, 1, &random);
    float *bias = c->bias ? new_floats(out, &random) : NULL;
    double *want = new_array(rows * out, sizeof(*want));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < out; j++) {
            double sum = bias ? (double)bias[j] : 0;
            for (size_t k = 0; k < in; k++)
                sum += (double)float_of_bf16(x[i * in + k]) * (double)float_of_bf16(w[j * in + k]);
            want[i * out + j] = sum;
        }

    struct kernel_weight *weight;
    assert_int_equal(cpu->weight_create(queue, w, c->out, c->in, false, &weight), TCA_OK);
    memset(w, 0xff, out * in * sizeof(*w)); /* the caller's copy may go */
    void *got = new_array(rows * out + 8, 4);
    memset(got, 0x55, (rows * out + 8) * 4);
    assert_int_equal(cpu->linear(queue, got, c->dtype, x, weight, bias, c->rows), TCA_OK);
    double absolute = 2e-6 * (double)in;
    if (c->dtype == KERNEL_F32)
        assert_close(got, want, rows * out, absolute, 1e-5, "f32");
    else
        assert_close_bf16(got, want, rows * out, absolute, 1.0 / 256, "bf16");
    size_t bytes = rows * out * (c->dtype == KERNEL_F32 ? 4 : 2);
    for (size_t i = 0; i < 16; i++) /* nothing is written past the end */
        assert_int_equal(((unsigned char *)got)[bytes + i], 0x55);

    cpu->weight_destroy(queue, weight);
    cpu_queue_destroy(queue);
    free(got);
    free(want);
    free(bias);
    free(w);
    free(x);
}

static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};

static void products_match_the_reference(void **state)
{
    (void)state;
    static const struct linear_case cases[] = {
        {1, 1, 1, false, KERNEL_F32},      {1, 8, 3, true, KERNEL_F32},
        {1, 576, 1536, false, KERNEL_F32}, {2, 64, 64, true, KERNEL_BF16},
        {3, 63, 65, true, KERNEL_F32},     {5, 33, 129, false, KERNEL_BF16},
        {16, 320, 320, false, KERNEL_F32}, {17, 96, 1366, true, KERNEL_F32},
        {33, 127, 31, true, KERNEL_BF16},  {64, 64, 192, false, KERNEL_F32},
        {100, 300, 77, true, KERNEL_F32},  {1000, 72, 48, true, KERNEL_F32},
    };
    for (size_t isa = 0; isa < 3; isa++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
            check_linear(isas[isa], (int)i % 3 + 1, &cases[i]);
}

static void every_row_count_up_to_33_is_right(void **state)
{
    (void)state;
    for (size_t isa = 0; isa < 3; isa++)
        for (int rows = 1; rows <= 33; rows++) {
            struct linear_case c = {rows, 40, 70, rows % 2 == 0, KERNEL_F32};
            check_linear(isas[isa], 2, &c);
        }
}

static void embed_reads_the_rows_of_this_rank(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    enum { ROWS = 37, COLS = 51, FIRST = 100, IDS = 6 };
    static const int32_t ids[IDS] = {100, 136, 137, 99, 0, 119};
    for (size_t isa = 0; isa < 3; isa++) {
        struct kernel_queue *queue;
        assert_int_equal(cpu_queue_create(2, isas[isa], &queue), TCA_OK);
        uint64_t random = 7;
        uint16_t *w = new_bf16s(ROWS * COLS, 1, &random);
        struct kernel_weight *table;
        assert_int_equal(cpu->weight_create(queue, w, ROWS, COLS, true, &table), TCA_OK);
        assert_true(cpu->weight_bytes(table) >= ROWS * COLS * sizeof(*w));
        float *got = new_floats(IDS * COLS, &random);
        assert_int_equal(cpu->embed(queue, got, table, ids, IDS, FIRST), TCA_OK);
        for (int i = 0; i < IDS; i++)
            for (int col = 0; col < COLS; col++) {
                bool is_ours = ids[i] >= FIRST && ids[i] < FIRST + ROWS;
                float want = is_ours ? float_of_bf16(w[(ids[i] - FIRST) * COLS + col]) : 0;
                assert_true(got[i * COLS + col] == want);
            }
        cpu->weight_destroy(queue, table);
        cpu_queue_destroy(queue);
        free(got);
        free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_the_reference),
        cmocka_unit_test(every_row_count_up_to_33_is_right),
        cmocka_unit_test(embed_reads_the_rows_of_this_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
