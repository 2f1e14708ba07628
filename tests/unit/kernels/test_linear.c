#include "tests/support/numbers.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

#include <dlfcn.h>
#include <math.h>

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

/* In oneDNN's stead, to count what is compiled: the library's own is behind it. */
int dnnl_primitive_create(void *primitive_out, const void *description);

static int compiled;

int dnnl_primitive_create(void *primitive_out, const void *description)
{
    union {
        void *found;
        int (*create)(void *, const void *);
    } next = {.found = dlsym(RTLD_NEXT, "dnnl_primitive_create")};

    assert_non_null(next.found);
    compiled++;
    return next.create(primitive_out, description);
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

/* Columns first .. of a matrix, as a rank that holds these parts has them. */
static void multiply_parts(enum cpu_isa isa, const uint16_t *x, const uint16_t *w,
                           const int *part_cols, int parts, int first_part, float *out)
{
    enum { ROWS = 37, OUT = 150, IN = 214 };
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue;
    struct kernel_weight *weight;
    int first = 0, cols = 0;
    for (int p = 0; p < first_part; p++)
        first += part_cols[p];
    for (int p = first_part; p < first_part + parts; p++)
        cols += part_cols[p];
    uint16_t *own_x = new_array((size_t)ROWS * (size_t)cols, sizeof(*own_x));
    uint16_t *own_w = new_array((size_t)OUT * (size_t)cols, sizeof(*own_w));
    for (int row = 0; row < ROWS; row++)
        memcpy(own_x + row * cols, x + row * IN + first, (size_t)cols * sizeof(*x));
    for (int row = 0; row < OUT; row++)
        memcpy(own_w + row * cols, w + row * IN + first, (size_t)cols * sizeof(*w));
    assert_int_equal(cpu_queue_create(2, isa, &queue), TCA_OK);
    assert_int_equal(
        cpu->weight_create_parts(queue, own_w, OUT, part_cols + first_part, parts, &weight),
        TCA_OK);
    assert_int_equal(cpu->linear(queue, out, KERNEL_F32, own_x, weight, NULL, ROWS), TCA_OK);
    cpu->weight_destroy(queue, weight);
    cpu_queue_destroy(queue);
    free(own_w);
    free(own_x);
}

/* A product a KV head, of a model that has many: what they are made of is compiled once. */
static void a_product_of_many_parts_is_compiled_once(void **state)
{
    enum { PARTS = 72, PART_COLS = 8, IN = PARTS * PART_COLS, OUT = 64 };
    const struct kernel_backend *cpu = kernel_backend_cpu();
    uint64_t random = 7;
    uint16_t *x = new_bf16s(IN, 1, &random), *w = new_bf16s((size_t)OUT * IN, 1, &random);
    struct kernel_queue *queue;
    struct kernel_weight *weight;
    int part_cols[PARTS], before;
    float out[OUT];

    (void)state;
    for (int p = 0; p < PARTS; p++)
        part_cols[p] = PART_COLS;
    assert_int_equal(cpu_queue_create(1, CPU_ISA_AVX512_BF16, &queue), TCA_OK);
    assert_int_equal(cpu->weight_create_parts(queue, w, OUT, part_cols, PARTS, &weight), TCA_OK);
    assert_int_equal(cpu->linear(queue, out, KERNEL_F32, x, weight, NULL, 1), TCA_OK);
    before = compiled;
    assert_true(before > 0 || cpu_queue_from(queue)->isa != CPU_ISA_AVX512_BF16);
    assert_int_equal(cpu->linear(queue, out, KERNEL_F32, x, weight, NULL, 1), TCA_OK);
    assert_int_equal(compiled, before);
    cpu->weight_destroy(queue, weight);
    cpu_queue_destroy(queue);
    free(w);
    free(x);
}

/* Five parts on one rank, or four on one and the last on another: the same bits after the sum. */
static void a_matrix_cut_between_parts_gives_the_bits_of_the_whole(void **state)
{
    (void)state;
    enum { ROWS = 37, OUT = 150, IN = 214, PARTS = 5, COUNT = ROWS * OUT };
    static const int part_cols[PARTS] = {64, 32, 33, 64, 21};
    uint64_t random = 3;
    uint16_t *x = new_bf16s(ROWS * IN, 1, &random), *w = new_bf16s(OUT * IN, 1, &random);
    float *whole = new_floats(COUNT, &random), *head = new_floats(COUNT, &random);
    float *tail = new_floats(COUNT, &random);
    for (size_t isa = 0; isa < 3; isa++) {
        multiply_parts(isas[isa], x, w, part_cols, PARTS, 0, whole);
        multiply_parts(isas[isa], x, w, part_cols, PARTS - 1, 0, head);
        multiply_parts(isas[isa], x, w, part_cols, 1, PARTS - 1, tail);
        for (int i = 0; i < COUNT; i++)
            assert_true(whole[i] == head[i] + tail[i]);
        for (int row = 0; row < ROWS; row++)
            for (int col = 0; col < OUT; col++) {
                double sum = 0;
                for (int k = 0; k < IN; k++)
                    sum += (double)float_of_bf16(x[row * IN + k]) *
                           (double)float_of_bf16(w[col * IN + k]);
                assert_true(fabs((double)whole[row * OUT + col] - sum) < 1e-3);
            }
    }
    free(tail);
    free(head);
    free(whole);
    free(w);
    free(x);
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
        cmocka_unit_test(a_product_of_many_parts_is_compiled_once),
        cmocka_unit_test(a_matrix_cut_between_parts_gives_the_bits_of_the_whole),
        cmocka_unit_test(embed_reads_the_rows_of_this_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
